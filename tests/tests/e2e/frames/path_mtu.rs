//! Paths whose MTU is below the least that IPv6 knows.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use tests::net::{namespace::Namespace, process::succeed, topology::Testbed, wait};

/// Address of the backend, which is behind a router.
const BACKEND: &str = "10.1.0.20";
const ENDPOINT: &str = "fd00::110";
const PORT: u16 = 7_000;
/// MTU of the router's link to the backend.
const PATH_MTU: u32 = 1_000;

/// A provider's network in which a router with a link of small MTU is in front of the backend.
///
/// ```text
///   a fd00::5 --- gateway --- provider (router, proxy ARP) --- MTU 1,000 --- backend 10.1.0.20
/// ```
struct RoutedTestbed {
    testbed: Testbed,
    backend: Namespace,
}

impl RoutedTestbed {
    fn new() -> Self {
        let testbed = Testbed::unconfigured();
        testbed.a.enable_ipv6("eth0", &["fd00::5"]);
        let (router, backend) = (&testbed.provider, Namespace::new("s"));
        router.connect("down", &backend);
        // The backend's own MTU is the usual one, so that the segments that it offers to receive do not give the small
        // MTU away.
        router.ip(&format!("link set dev down mtu {PATH_MTU}"));
        router.ip(&format!("route add {BACKEND} dev down"));
        for (key, value) in [
            ("ip_forward", "1"),
            ("conf/eth0/proxy_arp", "1"),
            ("conf/down/proxy_arp", "1"),
            ("neigh/eth0/proxy_delay", "0"),
            ("neigh/down/proxy_delay", "0"),
        ] {
            let path = format!("/proc/sys/net/ipv4/{key}");
            let written = router.run_in(move || std::fs::write(path, value));
            written.expect("a router");
        }
        // The kernel answers no request from the unspecified address on behalf of others.
        testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
        backend.ip(&format!("address add {BACKEND}/24 dev eth0"));
        for (tenant, interface) in [("a", "gw-a"), ("shop", "gw-p")] {
            testbed.agent.cli(&format!("tenant create {tenant}"));
            testbed.agent.cli(&format!(
                "network create {tenant}/net --interface {interface}"
            ));
        }
        testbed.agent.cli(&format!(
            "service create shop/web --network net --port * --backend {BACKEND} \
             --nat 10.1.0.96/28 --visibility * --auto-approval *"
        ));
        testbed.agent.cli(&format!(
            "endpoint create a/web --network net --address {ENDPOINT} --service shop/web"
        ));
        testbed.wait_for_backends();
        Self { testbed, backend }
    }
}

#[test]
fn transfer_completes_over_a_path_below_the_minimum_mtu_of_ipv6() {
    let RoutedTestbed { testbed, backend } = RoutedTestbed::new();
    let listener = backend.run_in(|| TcpListener::bind((BACKEND, PORT)).expect("a listener"));
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut received = Vec::new();
        let result = stream.read_to_end(&mut received);
        result.map(|_| received)
    });
    let sent: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let content = sent.clone();
    let limit = wait::DEFAULT_TIMEOUT * wait::timeout_factor();
    testbed.a.run_in(move || {
        let endpoint = format!("[{ENDPOINT}]:{PORT}").parse().expect("an address");
        let mut stream = TcpStream::connect_timeout(&endpoint, limit).expect("a connection");
        stream.set_write_timeout(Some(limit)).expect("a socket");
        stream.write_all(&content).expect("the data sent");
    });
    wait::until_true("the transfer to complete", || receiver.is_finished());
    let received = receiver.join().expect("the receiver").expect("the data");
    assert!(received == sent, "{} bytes were received", received.len());
    // The router reported its MTU to the client, and fragmented the packets that the client can't make smaller.
    let route = testbed.a.ip(&format!("-6 route get {ENDPOINT}"));
    assert!(route.contains("mtu 1280"), "{route}");
    let counters = succeed(&mut testbed.provider.command_line("nstat -asz IpFragOKs"));
    let fragmented = counters
        .split_whitespace()
        .skip_while(|word| *word != "IpFragOKs");
    let fragmented: u64 = fragmented
        .skip(1)
        .find_map(|word| word.parse().ok())
        .expect("a number");
    assert!(fragmented > 100, "{counters}");
}
