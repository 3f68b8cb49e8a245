//! Path MTU discovery while others use up what the gateway refuses in a second.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tests::net::{
    topology::{BACKENDS, ENDPOINT, Testbed},
    wait,
};

const PORT: u16 = 7_000;
/// Number of datagrams that exceed the MTU.
const ATTEMPTS: u32 = 6;
/// MTU of the provider's network, below the consumer's.
const PROVIDER_MTU: u32 = 1_400;

#[test]
fn path_mtu_is_discovered_during_a_port_scan() {
    let testbed = Testbed::unconfigured_with(&[("PLGW_REJECTS_PER_SECOND", "1")]);
    testbed
        .host
        .ip(&format!("link set dev gw-p mtu {PROVIDER_MTU}"));
    for (tenant, interface) in [("a", "gw-a"), ("shop", "gw-p")] {
        testbed.agent.cli(&format!("tenant create {tenant}"));
        testbed.agent.cli(&format!(
            "network create {tenant}/net --interface {interface}"
        ));
    }
    testbed.agent.cli(&format!(
        "service create shop/web --network net --port {PORT}/udp --backend {} --nat 10.1.0.64 \
         --visibility * --auto-approval *",
        BACKENDS[0]
    ));
    testbed.agent.cli(&format!(
        "endpoint create a/web --network net --address {ENDPOINT} --service shop/web"
    ));
    testbed.wait_for_backends();
    let stop = Arc::new(AtomicBool::new(false));
    let scan = {
        let stop = Arc::clone(&stop);
        testbed.a.spawn(move || {
            let socket = UdpSocket::bind("10.0.0.5:0").expect("a socket");
            while !stop.load(Ordering::Relaxed) {
                for port in 1..PORT {
                    // Fails when the queue is full.
                    let _full = socket.send_to(b"scan", (ENDPOINT, port));
                }
            }
        })
    };
    // Many times more than what may be answered in a second.
    wait::until_true("the scan to use up its budget", || {
        let status = testbed.agent.json("status");
        status["statistics"]["rejects_suppressed"].as_u64() > Some(10_000)
    });
    let client = testbed.a.run_in(|| {
        let socket = UdpSocket::bind("10.0.0.5:0").expect("a socket");
        socket.connect((ENDPOINT, PORT)).expect("a socket");
        socket
    });
    // The kernel sets the don't-fragment flag, and learns the path MTU from the errors.
    let knows_mtu = || {
        let route = testbed.a.ip(&format!("route get {ENDPOINT}"));
        route.contains(&format!("mtu {PROVIDER_MTU}"))
    };
    // A datagram or its answer may be lost in a queue that the scan fills. With one budget for both, hardly any answer
    // would be for this client.
    let is_known = (0..ATTEMPTS).any(|_| {
        let _too_long = client.send(&[0x5a; 1_472]);
        let start = Instant::now();
        let mut is_known = knows_mtu();
        while !is_known && start.elapsed() < Duration::from_secs(1) {
            is_known = knows_mtu();
        }
        is_known
    });
    stop.store(true, Ordering::Relaxed);
    scan.join().expect("the scan");
    assert!(is_known, "{}", testbed.agent.cli("status"));
}
