//! What keeps consumers apart from backends that left, with real sockets at both ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    site::{CLIENT, ENDPOINT, Site},
    wait,
};

/// The only backend, and the only address that consumers appear from.
const BACKEND: &str = "10.1.0.10";
const PORT: u16 = 7_000;

/// A site whose two consumers appear from one address, towards one backend.
fn site() -> Site {
    let site = Site::bare();
    for (tenant, interface) in [("a", "gw-a"), ("b", "gw-b"), ("shop", "gw-p")] {
        site.agent.cli(&format!("tenant create {tenant}"));
        site.agent.cli(&format!(
            "network create {tenant}/net --interface {interface}"
        ));
    }
    site.agent.cli(&format!(
        "service create shop/web --network net --port * --port */udp --backend {BACKEND} \
         --nat 10.1.0.64 --visibility * --auto-approval *"
    ));
    for tenant in ["a", "b"] {
        site.agent.cli(&format!(
            "endpoint create {tenant}/web --network net --address {ENDPOINT} --service shop/web"
        ));
    }
    site.wait_for_backends();
    site
}

/// Counts what a client receives from a server that streams to it, by TCP and UDP. Returns the counts,
/// and how the TCP stream ended.
fn stream(site: &Site) -> ([Arc<AtomicU64>; 2], mpsc::Receiver<ErrorKind>) {
    let counts: [Arc<AtomicU64>; 2] = Default::default();
    let (ended, end) = mpsc::channel();
    let (ready, listening) = mpsc::channel();
    let udp_ready = ready.clone();
    // These end with the test process.
    site.provider.spawn(move || {
        let listener = TcpListener::bind((BACKEND, PORT)).expect("a listener");
        ready.send(()).expect("the test");
        let (mut stream, _) = listener.accept().expect("a client");
        while stream.write_all(&[1; 1_000]).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    site.provider.spawn(move || {
        let socket = UdpSocket::bind((BACKEND, PORT)).expect("a socket");
        udp_ready.send(()).expect("the test");
        let mut buffer = [0; 100];
        let (_, client) = socket.recv_from(&mut buffer).expect("a client");
        loop {
            // The gateway's refusals are errors of the socket, which this server does not mind.
            let _refused = socket.send_to(&[1; 1_000], client);
            thread::sleep(Duration::from_millis(5));
        }
    });
    for _ in 0..2 {
        listening.recv().expect("a server");
    }
    let [tcp, udp] = counts.clone();
    site.a.spawn(move || {
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
    site.a.spawn(move || {
        let socket = UdpSocket::bind((CLIENT, 40_000)).expect("a socket");
        socket.send_to(b"go", (ENDPOINT, PORT)).expect("sent");
        let mut buffer = [0; 4_096];
        let mut received = 0;
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            udp.fetch_add(length as u64, Ordering::Relaxed);
            received += 1;
            // The second question establishes the flow.
            if received == 3 {
                socket.send_to(b"go on", (ENDPOINT, PORT)).expect("sent");
            }
        }
    });
    (counts, end)
}

#[test]
fn a_backend_that_was_removed_stops_streaming_to_the_consumer() {
    let site = site();
    let (counts, end) = stream(&site);
    for count in &counts {
        wait::until_true("a stream", || count.load(Ordering::Relaxed) > 20_000);
    }
    let flows = || site.agent.json("flow list").as_array().cloned();
    let open = flows().expect("a list");
    assert!(
        open.len() == 2 && open.iter().all(|flow| flow["evictable"] == false),
        "{open:#?}"
    );
    let removed = Instant::now();
    site.agent
        .cli(&format!("service backend remove shop/web {BACKEND}"));
    // When the call returns, nothing passes any more but what has left the gateway.
    assert_eq!(flows(), Some(Vec::new()), "flows are listed");
    let limit = Duration::from_secs(1) * wait::patience();
    let error = end.recv_timeout(limit).expect("the TCP client to be told");
    println!(
        "the client learned after {:?}: {error:?}",
        removed.elapsed()
    );
    assert_eq!(error, ErrorKind::ConnectionReset);
    let crossed = || {
        let counters = &site.agent.json("endpoint show a/web")["status"]["counters"];
        counters["packets_to_consumer"].as_u64().expect("a number")
    };
    let refused = || site.agent.drops("backend_gone");
    let (last, before) = (crossed(), refused());
    // The server goes on: its datagrams are refused and counted.
    wait::until_true("the server to send", || refused() > before + 20);
    assert_eq!(crossed(), last, "packets passed after the removal");
    let udp = counts[1].load(Ordering::Relaxed);
    wait::until_true("the server to send on", || refused() > before + 40);
    assert_eq!(counts[1].load(Ordering::Relaxed), udp);
    // The connection's use is given back.
    let used = || site.agent.json("endpoint show a/web")["status"].clone();
    wait::until_true("the flows to be given back", || {
        used()["flows"].as_u64() == Some(0)
    });
}
