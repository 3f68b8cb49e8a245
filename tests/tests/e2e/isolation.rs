//! Isolation of consumers that share a SNAT address, and of consumers from a removed backend, with real sockets at
//! both ends.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tests::{
    net::{
        namespace::Namespace,
        topology::{CLIENT, ENDPOINT, Testbed},
        wait,
    },
    packet::{Ipv4, Transport, Udp},
};

/// Address of the only backend.
const BACKEND: &str = "10.1.0.10";
/// Port of the service, and of the backend.
const PORT: u16 = 7_000;

/// Returns a testbed with one backend and one SNAT address, which both consumers share.
fn testbed() -> Testbed {
    let testbed = Testbed::unconfigured();
    for (tenant, interface) in [("a", "gw-a"), ("b", "gw-b"), ("shop", "gw-p")] {
        testbed.agent.cli(&format!("tenant create {tenant}"));
        testbed.agent.cli(&format!(
            "network create {tenant}/net --interface {interface}"
        ));
    }
    testbed.agent.cli(&format!(
        "service create shop/web --network net --port * --port */udp --backend {BACKEND} \
         --nat 10.1.0.64 --visibility * --auto-approval *"
    ));
    for tenant in ["a", "b"] {
        testbed.agent.cli(&format!(
            "endpoint create {tenant}/web --network net --address {ENDPOINT} --service shop/web"
        ));
    }
    testbed.wait_for_backends();
    testbed
}

/// Returns the two fragments of a datagram from a consumer. It has no UDP checksum, so that the receiver could not
/// detect a fragment of another datagram.
fn fragments(byte: u8) -> [Vec<u8>; 2] {
    let [client, endpoint]: [Ipv4Addr; 2] =
        [CLIENT, ENDPOINT].map(|text| text.parse().expect("an address"));
    let datagram = Udp {
        source: 40_000,
        destination: PORT,
        checksummed: false,
        payload: vec![byte; 2_000],
    };
    let whole = Ipv4::new(client, endpoint, Transport::Udp(datagram)).bytes(false);
    let fragment_of = |range: std::ops::Range<usize>, fragment| {
        let bytes = whole[20..][range].to_vec();
        let ip = Ipv4::new(client, endpoint, Transport::Other(17, bytes));
        let ip = Ipv4 {
            id: 9,
            fragment,
            ..ip
        };
        ip.bytes(false)
    };
    [
        fragment_of(0..1_400, 0x2000),
        fragment_of(1_400..2_008, 1_400 / 8),
    ]
}

/// Sends an IPv4 packet, header included, through a raw socket.
fn send_raw(from: &Namespace, packet: Vec<u8>) {
    from.run_in(move || {
        // SAFETY: the call takes three numbers.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        assert!(socket >= 0, "a raw socket");
        // SAFETY: the descriptor is open, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let endpoint: Ipv4Addr = ENDPOINT.parse().expect("an address");
        let address = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("small"),
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(endpoint.octets()),
            },
            sin_zero: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
        // SAFETY: packet and address are valid for the given lengths until the call returns.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        assert_eq!(usize::try_from(sent), Ok(packet.len()));
    });
}

#[test]
fn fragments_of_two_consumers_are_never_mixed_in_a_datagram() {
    let testbed = testbed();
    let (sender, received) = mpsc::channel();
    let (ready, listening) = mpsc::channel();
    // The server runs until the test process exits.
    testbed.provider.spawn(move || {
        let socket = UdpSocket::bind((BACKEND, PORT)).expect("a socket");
        ready.send(()).expect("the test");
        let mut buffer = [0; 4_096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if sender.send((from, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    listening.recv().expect("a server");
    let [[a_head, a_tail], [b_head, b_tail]] = [fragments(b'a'), fragments(b'b')];
    // A datagram of each consumer resolves the neighbours and opens the flows.
    for namespace in [&testbed.a, &testbed.b] {
        namespace.run_in(|| {
            let socket = UdpSocket::bind((CLIENT, 40_000)).expect("a socket");
            socket.send_to(b"x", (ENDPOINT, PORT)).expect("sent");
        });
    }
    let limit = wait::DEFAULT_TIMEOUT * wait::timeout_factor();
    let next = || received.recv_timeout(limit).expect("a datagram");
    let sources: BTreeSet<_> = [next(), next()].map(|(from, _)| from.ip()).into();
    assert_eq!(
        sources.len(),
        1,
        "the consumers do not share a SNAT address: {sources:?}"
    );
    for _ in 0..3 {
        send_raw(&testbed.a, a_head.clone());
        send_raw(&testbed.b, b_head.clone());
        send_raw(&testbed.b, b_tail.clone());
        send_raw(&testbed.a, a_tail.clone());
        let mut bytes = [next(), next()].map(|(_, bytes)| bytes);
        bytes.sort();
        let wanted = [vec![b'a'; 2_000], vec![b'b'; 2_000]];
        assert!(
            bytes == wanted,
            "a received datagram contains bytes of both consumers"
        );
    }
}

/// Starts servers that stream to a client of consumer a, by TCP and UDP. Returns counters of the received bytes, and
/// a channel that receives the error that ends the TCP stream.
fn start_stream(testbed: &Testbed) -> ([Arc<AtomicU64>; 2], mpsc::Receiver<ErrorKind>) {
    let counts: [Arc<AtomicU64>; 2] = Default::default();
    let (ended, end) = mpsc::channel();
    let (ready, listening) = mpsc::channel();
    let udp_ready = ready.clone();
    // The servers and clients run until the test process exits.
    testbed.provider.spawn(move || {
        let listener = TcpListener::bind((BACKEND, PORT)).expect("a listener");
        ready.send(()).expect("the test");
        let (mut stream, _) = listener.accept().expect("a client");
        while stream.write_all(&[1; 1_000]).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    testbed.provider.spawn(move || {
        let socket = UdpSocket::bind((BACKEND, PORT)).expect("a socket");
        udp_ready.send(()).expect("the test");
        let mut buffer = [0; 100];
        let (_, client) = socket.recv_from(&mut buffer).expect("a client");
        loop {
            // The gateway's rejects are errors of the socket, which this server ignores.
            let _rejected = socket.send_to(&[1; 1_000], client);
            thread::sleep(Duration::from_millis(5));
        }
    });
    for _ in 0..2 {
        listening.recv().expect("a server");
    }
    let [tcp, udp] = counts.clone();
    testbed.a.spawn(move || {
        let mut stream = TcpStream::connect((ENDPOINT, PORT)).expect("a connection");
        let mut buffer = [0; 4_096];
        let error = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break ErrorKind::UnexpectedEof,
                Ok(length) => tcp.fetch_add(length as u64, Ordering::Relaxed),
                Err(error) => break error.kind(),
            };
        };
        let _test_over = ended.send(error);
    });
    testbed.a.spawn(move || {
        let socket = UdpSocket::bind((CLIENT, 40_000)).expect("a socket");
        socket.send_to(b"go", (ENDPOINT, PORT)).expect("sent");
        let mut buffer = [0; 4_096];
        let mut received = 0;
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            udp.fetch_add(length as u64, Ordering::Relaxed);
            received += 1;
            // The second datagram of the client establishes the flow.
            if received == 3 {
                socket.send_to(b"go on", (ENDPOINT, PORT)).expect("sent");
            }
        }
    });
    (counts, end)
}

#[test]
fn removed_backend_stops_streaming_to_the_consumer() {
    let testbed = testbed();
    let (counts, end) = start_stream(&testbed);
    for count in &counts {
        wait::until_true("20,000 bytes of each stream", || {
            count.load(Ordering::Relaxed) > 20_000
        });
    }
    let flows = || testbed.agent.json("flow list").as_array().cloned();
    wait::until_true("both flows to be established", || {
        let open = flows().expect("a list");
        open.len() == 2 && open.iter().all(|flow| flow["evictable"] == false)
    });
    let forwarded_packets = || {
        let counters = &testbed.agent.json("endpoint show a/web")["status"]["counters"];
        counters["packets_to_consumer"].as_u64().expect("a number")
    };
    testbed
        .agent
        .cli(&format!("service backend remove shop/web {BACKEND}"));
    // No packet of the backend is forwarded after the command has returned.
    let at_removal = forwarded_packets();
    assert_eq!(flows(), Some(Vec::new()), "flows after the removal");
    // The agent itself sends the reset, because the client only reads and sends no packet that could be rejected.
    let limit = wait::DEFAULT_TIMEOUT * wait::timeout_factor();
    let error = end
        .recv_timeout(limit)
        .expect("the error of the TCP client");
    assert_eq!(error, ErrorKind::ConnectionReset);
    let dropped = || testbed.agent.drop_count("backend_removed");
    let before = dropped();
    // The UDP server still sends. Its datagrams are dropped and counted.
    wait::until_true("20 datagrams to be dropped", || dropped() > before + 20);
    assert_eq!(
        forwarded_packets(),
        at_removal,
        "packets were forwarded after the removal"
    );
    // The flows no longer count towards the connection's flow limit.
    let status = || testbed.agent.json("endpoint show a/web")["status"].clone();
    wait::until_true("the connection to have no flows", || {
        status()["flows"].as_u64() == Some(0)
    });
}
