//! Traffic of real programs through the gateway for every pair of address families: IPv4 to IPv4, IPv6 to IPv6,
//! NAT46 and NAT64.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tests::{
    net::{
        families::{Families, for_each_family_pair},
        namespace::Namespace,
        process::{run, succeed},
        udp_client::request_until_accepted,
        wait,
    },
    services::nginx::Nginx,
};

/// Returns words of a multiplicative sequence as bytes: no word repeats, and every call returns the same bytes.
fn random_bytes(length: u32) -> Vec<u8> {
    let word = |number: u32| number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    (0..length / 4).flat_map(word).collect()
}

/// Returns a curl command that runs in the namespace.
fn curl(namespace: &Namespace, arguments: &str) -> Command {
    namespace.command_line(&format!("curl -sSf -m 60 {arguments}"))
}

#[test]
fn large_bodies_arrive_intact_in_both_directions() {
    for_each_family_pair(|families, testbed| {
        let server = Nginx::start(&testbed.provider, &families.backend().to_string());
        let content = random_bytes(20_000_000);
        fs::write(server.root().join("large"), &content).expect("a file");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        let url = families.url("large");
        succeed(&mut curl(&testbed.a, &format!("-o {path} {url}")));
        let got: [u8; 32] = Sha256::digest(fs::read(&file).expect("a file")).into();
        let wanted: [u8; 32] = Sha256::digest(&content).into();
        assert_eq!(got, wanted, "the received file differs from the served one");
        let address = SocketAddr::new(families.backend(), 7_000);
        let receiver = testbed.provider.spawn(move || {
            let listener = TcpListener::bind(address).expect("a listener");
            let (mut stream, _) = listener.accept().expect("a client");
            let mut received = Vec::new();
            stream.read_to_end(&mut received).expect("an upload");
            received
        });
        let endpoint = SocketAddr::new(families.endpoint(), 7_000);
        let sent = content.clone();
        testbed.a.run_in(move || {
            let mut stream = wait::until("a listener", wait::DEFAULT_TIMEOUT, || {
                TcpStream::connect(endpoint).ok()
            });
            stream.write_all(&sent).expect("an upload");
        });
        let received = receiver.join().expect("the receiver");
        assert!(
            received == content,
            "the upload differs: {} bytes were received",
            received.len()
        );
    });
}

/// Starts a server that answers each datagram with one whose length the first two bytes of the request give. The
/// first two bytes of the answer are the length of the request.
fn answer_by_udp(provider: &Namespace, address: SocketAddr) {
    // The server runs until the test process exits.
    provider.spawn(move || {
        let socket = UdpSocket::bind(address).expect("a socket");
        let mut buffer = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let wanted = u16::from_be_bytes([buffer[0], buffer[1]]);
            let mut answer = random_bytes(u32::from(wanted) + 4);
            answer.truncate(usize::from(wanted));
            answer[..2].copy_from_slice(&u16::try_from(length).expect("short").to_be_bytes());
            let _client_gone = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn datagrams_arrive_intact_whole_or_fragmented() {
    for_each_family_pair(|families, testbed| {
        answer_by_udp(
            &testbed.provider,
            SocketAddr::new(families.backend(), 5_353),
        );
        let endpoint = SocketAddr::new(families.endpoint(), 5_353);
        testbed.a.run_in(move || {
            let socket = connected(endpoint);
            for (asked, answered) in [(2, 2), (512, 4_000), (4_000, 512), (9_000, 30_000)] {
                let mut question = vec![0x5a; asked];
                question[..2]
                    .copy_from_slice(&u16::try_from(answered).expect("short").to_be_bytes());
                let answer =
                    request_until_accepted(&socket, &question, |answer| answer.len() == answered);
                assert_eq!(
                    usize::from(u16::from_be_bytes([answer[0], answer[1]])),
                    asked,
                    "the length of the request at the server"
                );
                assert_eq!(
                    answer[2..],
                    random_bytes(u32::try_from(answered).expect("short") + 4)[2..answered],
                    "the payload of the answer"
                );
            }
        });
    });
}

#[test]
fn connection_to_a_closed_port_is_refused_immediately() {
    for_each_family_pair(|families, testbed| {
        let endpoint = SocketAddr::new(families.endpoint(), 9);
        testbed.a.run_in(move || {
            let refused = TcpStream::connect(endpoint).expect_err("a closed port");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let socket = connected(endpoint);
            // The server's ICMP error reaches the client, and its embedded packet matches the client's socket.
            wait::until_true("the ICMP error", || {
                let sent = socket.send(b"anybody?");
                let received = socket.recv(&mut [0; 16]);
                [sent.err(), received.err()]
                    .into_iter()
                    .flatten()
                    .any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
        });
    });
}

#[test]
fn path_mtu_discovery_finds_a_smaller_mtu() {
    for_each_family_pair(|families, testbed| {
        let server = Nginx::start(&testbed.provider, &families.backend().to_string());
        let content = random_bytes(2_000_000);
        fs::write(server.root().join("large"), &content).expect("a file");
        // The MTU is below that of the hosts' interfaces, so only the gateway's ICMP errors can report it.
        testbed.agent.cli("network update shop/net --mtu 1400");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let url = families.url("large");
        succeed(&mut curl(
            &testbed.a,
            &format!("-o {} {url}", file.path().display()),
        ));
        assert!(
            fs::read(&file).expect("a file") == content,
            "the received file differs from the served one"
        );
        let tracepath = testbed
            .a
            .command_line(&format!("tracepath -n -m 3 {}", families.endpoint()));
        let text = run_tracepath(tracepath);
        let expected_mtu = match families {
            Families::V4ToV4 | Families::V6ToV6 => 1_400,
            Families::V4ToV6 => 1_380,
            Families::V6ToV4 => 1_420,
        };
        assert!(text.contains(&format!("pmtu {expected_mtu}")), "{text}");
    });
}

/// Returns a client socket that is connected to the endpoint and has a short read timeout.
fn connected(endpoint: SocketAddr) -> UdpSocket {
    let any: IpAddr = if endpoint.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        "::".parse().expect("an address")
    };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a socket");
    socket.connect(endpoint).expect("a socket");
    socket
}

/// Runs tracepath and returns its output, whatever its exit status is.
fn run_tracepath(mut command: Command) -> String {
    let output = run(&mut command, Duration::from_secs(60)).expect("tracepath");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ping_is_answered_whole_or_fragmented() {
    for_each_family_pair(|families, testbed| {
        for size in [56, 1_400, 4_000] {
            let text = succeed(&mut testbed.a.command_line(&format!(
                "ping -c 3 -i 0.2 -W 2 -s {size} {}",
                families.endpoint()
            )));
            assert!(text.contains("3 received"), "{size}: {text}");
        }
    });
}

#[test]
fn jumbo_frames_are_forwarded() {
    for_each_family_pair(|families, testbed| {
        for interface in ["gw-a", "gw-p"] {
            testbed
                .host
                .ip(&format!("link set dev {interface} mtu 9000"));
        }
        for namespace in [&testbed.a, &testbed.provider] {
            namespace.ip("link set dev eth0 mtu 9000");
        }
        wait::until_true("the agent to see the MTU", || {
            let network = testbed.agent.json("network show shop/net");
            network["status"]["attachments"][0]["mtu"] == 9_000
        });
        let server = Nginx::start(&testbed.provider, &families.backend().to_string());
        let content = random_bytes(20_000_000);
        fs::write(server.root().join("large"), &content).expect("a file");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let url = families.url("large");
        succeed(&mut curl(
            &testbed.a,
            &format!("-o {} {url}", file.path().display()),
        ));
        assert!(
            fs::read(&file).expect("a file") == content,
            "the received file differs from the served one"
        );
        // The payload fits in one frame, which the data path answers or forwards without fragmentation.
        let endpoint = families.endpoint();
        let text = succeed(
            &mut testbed
                .a
                .command_line(&format!("ping -c 3 -i 0.2 -W 2 -M do -s 8900 {endpoint}")),
        );
        assert!(text.contains("3 received"), "{text}");
        answer_by_udp(
            &testbed.provider,
            SocketAddr::new(families.backend(), 5_353),
        );
        let endpoint = SocketAddr::new(endpoint, 5_353);
        testbed.a.run_in(move || {
            let socket = connected(endpoint);
            let mut question = vec![0x5a; 8_900];
            question[..2].copy_from_slice(&8_800u16.to_be_bytes());
            let answer = request_until_accepted(&socket, &question, |answer| answer.len() == 8_800);
            assert_eq!(
                answer[2..],
                random_bytes(8_804)[2..8_800],
                "the payload of the answer"
            );
        });
    });
}
