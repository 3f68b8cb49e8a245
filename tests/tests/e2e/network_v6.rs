//! IPv6 traffic of real programs through the gateway.

use std::{fs, net::UdpSocket, process::Command};

use sha2::{Digest as _, Sha256};
use tests::{
    net::{
        namespace::Namespace, process::succeed, topology::Testbed,
        udp_client::request_until_accepted, wait,
    },
    services::nginx::Nginx,
};

const ENDPOINT: &str = "fd00::100";
const BACKENDS: [&str; 2] = ["fd00:1::10", "fd00:1::11"];

/// Returns the default testbed with an additional IPv6 service, which is approved for both consumers. Both
/// consumers have the address fd00::5.
fn testbed() -> Testbed {
    let testbed = Testbed::new();
    testbed.host.enable_ipv6("gw-p", &[]);
    for consumer in [&testbed.a, &testbed.b] {
        consumer.enable_ipv6("eth0", &["fd00::5"]);
    }
    testbed.provider.enable_ipv6("eth0", &BACKENDS);
    let [one, two] = BACKENDS;
    testbed.agent.cli(&format!(
        "service create shop/web6 --network net --port * --port */udp --backend {one} \
         --backend {two} --nat fd00:1::40/124 --visibility * --auto-approval *"
    ));
    for tenant in ["a", "b"] {
        testbed.agent.cli(&format!(
            "endpoint create {tenant}/web6 --network net --address {ENDPOINT} --service shop/web6"
        ));
    }
    wait::until_true("the backends to be reachable", || {
        let service = testbed.agent.json("service show shop/web6");
        let backends = service["status"]["backends"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        backends.len() == 2 && backends.iter().all(|backend| backend["reachable"] == true)
    });
    testbed
}

/// Returns a curl command for a path on the endpoint.
fn curl(namespace: &Namespace, path: &str) -> Command {
    namespace.command_line(&format!("curl -sSf -m 60 http://[{ENDPOINT}]/{path}"))
}

#[test]
fn large_files_arrive_intact_and_requests_spread_over_the_backends() {
    let testbed = testbed();
    let servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let word = |number: u32| number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    let content: Vec<u8> = (0..5_000_000).flat_map(word).collect();
    for server in &servers {
        fs::write(server.root().join("large"), &content).expect("a file");
    }
    let wanted: [u8; 32] = Sha256::digest(&content).into();
    for consumer in [&testbed.a, &testbed.b] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        succeed(curl(consumer, "large").arg("-o").arg(file.path()));
        let got: [u8; 32] = Sha256::digest(fs::read(file.path()).expect("a file")).into();
        assert_eq!(got, wanted, "the received file differs from the served one");
    }
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..30 {
        names.insert(succeed(&mut curl(&testbed.a, "name")));
    }
    assert_eq!(names.len(), 2, "backends that answered: {names:?}");
    let clients: Vec<String> = servers.iter().flat_map(Nginx::client_addresses).collect();
    assert!(
        clients.iter().all(|client| client.starts_with("fd00:1::4")),
        "the backends saw addresses other than SNAT addresses: {clients:?}"
    );
    let flows = testbed.agent.cli("flow list");
    assert!(
        flows.contains("[fd00::5]:") && flows.contains("[fd00:1::1"),
        "{flows}"
    );
}

#[test]
fn udp_is_forwarded_and_ping_is_answered() {
    let testbed = testbed();
    for address in BACKENDS {
        // The echo server runs until the test process exits.
        testbed.provider.spawn(move || {
            let socket = UdpSocket::bind((address, 5_353)).expect("a socket");
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
    testbed.a.run_in(|| {
        let socket = UdpSocket::bind("[fd00::5]:0").expect("a socket");
        socket.connect((ENDPOINT, 5_353)).expect("a socket");
        for length in [0, 1, 511, 1_452] {
            let question = vec![0x5a; length];
            request_until_accepted(&socket, &question, |answer| *answer == question);
        }
    });
    let text = succeed(
        &mut testbed
            .b
            .command_line(&format!("ping -6 -c 3 -i 0.2 -W 2 {ENDPOINT}")),
    );
    assert!(text.contains("3 received"), "{text}");
}

#[test]
fn host_using_an_endpoint_address_fails_duplicate_address_detection() {
    let testbed = testbed();
    testbed.a.ip(&format!("address add {ENDPOINT}/64 dev eth0"));
    wait::until_true("duplicate address detection to fail", || {
        testbed
            .a
            .ip("-6 address show dev eth0")
            .contains("dadfailed")
    });
    testbed.agent.cli("endpoint delete a/web6");
    testbed.a.ip(&format!("address del {ENDPOINT}/64 dev eth0"));
    testbed.a.ip(&format!("address add {ENDPOINT}/64 dev eth0"));
    wait::until_true("duplicate address detection to succeed", || {
        let text = testbed.a.ip("-6 address show dev eth0");
        text.contains(ENDPOINT) && !text.contains("tentative") && !text.contains("dadfailed")
    });
}
