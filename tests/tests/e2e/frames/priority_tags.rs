//! Hosts that tag their frames with a priority and no VLAN.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use tests::net::{
    namespace::Namespace,
    process::succeed,
    topology::{BACKENDS, ENDPOINT, Testbed},
    udp_client::request_until_accepted,
    vlan_tagger, wait,
};

const PORT: u16 = 7_000;
/// The highest priority, and no VLAN.
const PRIORITY_TAG: u16 = 0xe000;

/// Makes a host tag everything that it sends, ARP included. The tag is in the bytes of the frame.
fn tag_frames(host: &Namespace) {
    succeed(&mut host.command_line("ethtool -K eth0 txvlan off tx-vlan-stag-hw-insert off"));
    vlan_tagger::push_vlan_tags(host, "eth0", PRIORITY_TAG).expect("a program that pushes tags");
}

/// Starts servers at both backends that return what they receive: a line of text by TCP, a datagram by UDP. They run
/// until the test process exits.
fn start_echo_servers(provider: &Namespace) {
    for address in BACKENDS {
        let (listener, socket) = provider.run_in(move || {
            (
                TcpListener::bind((address, PORT)).expect("a listener"),
                UdpSocket::bind((address, PORT)).expect("a socket"),
            )
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let mut received = Vec::new();
                stream.read_to_end(&mut received).expect("a request");
                stream.write_all(&received).expect("an answer");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
}

#[test]
fn priority_tagged_frames_reach_a_service_and_come_back() {
    let testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    tag_frames(&testbed.a);
    tag_frames(&testbed.provider);
    // The client resolves the endpoint again, by a tagged request. The host resolves the backends by tagged replies.
    for host in [&testbed.a, &testbed.provider] {
        host.ip("neigh flush dev eth0");
    }
    testbed.a.run_in(|| {
        let endpoint: SocketAddr = (
            ENDPOINT.parse::<std::net::IpAddr>().expect("an address"),
            PORT,
        )
            .into();
        let limit = wait::DEFAULT_TIMEOUT * wait::timeout_factor();
        let mut stream = TcpStream::connect_timeout(&endpoint, limit).expect("a connection");
        stream.set_read_timeout(Some(limit)).expect("a socket");
        let sent = vec![0x5a; 100_000];
        stream.write_all(&sent).expect("a request");
        stream.shutdown(std::net::Shutdown::Write).expect("a FIN");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("an answer");
        assert!(received == sent, "{} bytes came back", received.len());
        let socket = UdpSocket::bind("10.0.0.5:0").expect("a socket");
        socket.connect(endpoint).expect("a socket");
        request_until_accepted(&socket, b"tagged", |answer| answer == b"tagged");
    });
    let mut ping = testbed
        .a
        .command_line(&format!("ping -c 1 -W 5 {ENDPOINT}"));
    let text = succeed(&mut ping);
    assert!(text.contains("1 received"), "{text}");
    assert_eq!(testbed.agent.drop_count("vlan_tagged"), 0);
    // The other consumer's frames belong to a VLAN.
    succeed(
        &mut testbed
            .b
            .command_line("ethtool -K eth0 txvlan off tx-vlan-stag-hw-insert off"),
    );
    vlan_tagger::push_vlan_tags(&testbed.b, "eth0", PRIORITY_TAG | 1)
        .expect("a program that pushes tags");
    let connected = testbed.b.run_in(|| {
        let endpoint = (
            ENDPOINT.parse::<std::net::IpAddr>().expect("an address"),
            PORT,
        )
            .into();
        TcpStream::connect_timeout(&endpoint, Duration::from_millis(500)).is_ok()
    });
    assert!(!connected);
    assert!(testbed.agent.drop_count("vlan_tagged") > 0);
}
