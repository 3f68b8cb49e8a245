//! IPv6 through the gateway, with real programs at both ends.

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

/// The usual site, with an IPv6 service beside the other, approved for both consumers, who both are
/// fd00::5.
fn testbed() -> Testbed {
    let site = Testbed::new();
    site.host.enable_ipv6("gw-p", &[]);
    for consumer in [&site.a, &site.b] {
        consumer.enable_ipv6("eth0", &["fd00::5"]);
    }
    site.provider.enable_ipv6("eth0", &BACKENDS);
    let [one, two] = BACKENDS;
    site.agent.cli(&format!(
        "service create shop/web6 --network net --port * --port */udp --backend {one} \
         --backend {two} --nat fd00:1::40/124 --visibility * --auto-approval *"
    ));
    for tenant in ["a", "b"] {
        site.agent.cli(&format!(
            "endpoint create {tenant}/web6 --network net --address {ENDPOINT} --service shop/web6"
        ));
    }
    wait::until_true("the backends to be reachable", || {
        let service = site.agent.json("service show shop/web6");
        let backends = service["status"]["backends"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        backends.len() == 2 && backends.iter().all(|backend| backend["reachable"] == true)
    });
    site
}

fn curl(namespace: &Namespace, path: &str) -> Command {
    namespace.command_line(&format!("curl -sSf -m 60 http://[{ENDPOINT}]/{path}"))
}

#[test]
fn large_files_arrive_intact_and_requests_spread_over_the_backends() {
    let site = testbed();
    let servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let word = |number: u32| number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    let content: Vec<u8> = (0..5_000_000).flat_map(word).collect();
    for server in &servers {
        fs::write(server.root().join("large"), &content).expect("a file");
    }
    let wanted: [u8; 32] = Sha256::digest(&content).into();
    for consumer in [&site.a, &site.b] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        succeed(curl(consumer, "large").arg("-o").arg(file.path()));
        let got: [u8; 32] = Sha256::digest(fs::read(file.path()).expect("a file")).into();
        assert_eq!(got, wanted);
    }
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..30 {
        names.insert(succeed(&mut curl(&site.a, "name")));
    }
    assert_eq!(names.len(), 2, "{names:?}");
    let clients: Vec<String> = servers.iter().flat_map(Nginx::client_addresses).collect();
    assert!(
        clients.iter().all(|client| client.starts_with("fd00:1::4")),
        "{clients:?}"
    );
    let flows = site.agent.cli("flow list");
    assert!(
        flows.contains("[fd00::5]:") && flows.contains("[fd00:1::1"),
        "{flows}"
    );
}

#[test]
fn udp_is_forwarded_and_ping_is_answered() {
    let site = testbed();
    for address in BACKENDS {
        // Ends with the test process; it only answers.
        site.provider.spawn(move || {
            let socket = UdpSocket::bind((address, 5_353)).expect("a socket");
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
    site.a.run_in(|| {
        let socket = UdpSocket::bind("[fd00::5]:0").expect("a socket");
        socket.connect((ENDPOINT, 5_353)).expect("a socket");
        for length in [0, 1, 511, 1_452] {
            let question = vec![0x5a; length];
            request_until_accepted(&socket, &question, |answer| *answer == question);
        }
    });
    let text = succeed(
        &mut site
            .b
            .command_line(&format!("ping -6 -c 3 -i 0.2 -W 2 {ENDPOINT}")),
    );
    assert!(text.contains("3 received"), "{text}");
}

#[test]
fn host_using_an_endpoint_address_fails_duplicate_address_detection() {
    let site = testbed();
    site.a.ip(&format!("address add {ENDPOINT}/64 dev eth0"));
    wait::until_true("the duplicate to be found", || {
        site.a.ip("-6 address show dev eth0").contains("dadfailed")
    });
    site.agent.cli("endpoint delete a/web6");
    site.a.ip(&format!("address del {ENDPOINT}/64 dev eth0"));
    site.a.ip(&format!("address add {ENDPOINT}/64 dev eth0"));
    wait::until_true("the address to be one's own", || {
        let text = site.a.ip("-6 address show dev eth0");
        text.contains(ENDPOINT) && !text.contains("tentative") && !text.contains("dadfailed")
    });
}
