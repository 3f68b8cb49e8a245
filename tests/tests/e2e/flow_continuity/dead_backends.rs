//! Backends that die silently, or drain: connections that are being opened and UDP flows go to another one.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier, mpsc},
    time::{Duration, Instant},
};

use tests::net::{
    topology::{BACKENDS, ENDPOINT, Testbed},
    wait,
};

use super::{ask_until, start_tcp_echo, start_udp_servers, udp_client};

const TCP: u16 = 7_420;
const UDP: u16 = 7_421;

/// Number of clients that connect when a backend dies.
const CLIENTS: usize = 12;

/// Time in which every client must be connected: three seconds, and one interval of the client's retransmissions.
const MAX_CONNECT: Duration = Duration::from_secs(4);

/// Returns a testbed with servers, whose backends are checked each second.
fn checked_testbed() -> Testbed {
    let testbed = Testbed::with_approved_connections();
    // The second address stays when the first one is taken away.
    let setting = "/proc/sys/net/ipv4/conf/eth0/promote_secondaries";
    let set = testbed
        .provider
        .run_in(move || std::fs::write(setting, "1"));
    set.expect("a setting");
    // Health checks come from the host's own address.
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    start_tcp_echo(&testbed.provider, TCP);
    start_udp_servers(&testbed.provider, UDP);
    testbed.agent.cli(&format!(
        "service update shop/web --health-check tcp --health-port {TCP} --health-interval 1 --health-timeout 1 \
         --healthy-threshold 1 --unhealthy-threshold 1"
    ));
    wait_for_health(&testbed, [true, true]);
    testbed
}

/// Waits until the backends are healthy or unhealthy.
#[track_caller]
fn wait_for_health(testbed: &Testbed, expected: [bool; 2]) {
    wait::until_true("the health of the backends", || {
        let service = testbed.agent.json("service show shop/web");
        let backends = service["status"]["backends"].as_array().cloned();
        let backends = backends.unwrap_or_default();
        BACKENDS.iter().zip(expected).all(|(address, healthy)| {
            let mut backends = backends.iter();
            backends.any(|backend| {
                backend["address"] == **address
                    && (backend["healthy"] == healthy
                        || (!healthy && backend["reachable"] == false))
            })
        })
    });
}

/// Takes a backend's address from its host, which answers nothing from now on.
fn kill_silently(testbed: &Testbed, address: &str) {
    testbed
        .provider
        .ip(&format!("address del {address}/24 dev eth0"));
}

#[test]
fn every_connection_is_opened_though_a_backend_dies_silently() {
    let testbed = checked_testbed();
    let start = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let start = Arc::clone(&start);
            testbed.a.spawn(move || {
                let endpoint: SocketAddr = format!("{ENDPOINT}:{TCP}").parse().expect("an address");
                start.wait();
                let since = Instant::now();
                let limit = MAX_CONNECT * wait::timeout_factor();
                let result = TcpStream::connect_timeout(&endpoint, limit);
                (result.map(|_| ()), since.elapsed())
            })
        })
        .collect();
    kill_silently(&testbed, BACKENDS[1]);
    start.wait();
    let results: Vec<_> = clients
        .into_iter()
        .map(|c| c.join().expect("a client"))
        .collect();
    let longest = results
        .iter()
        .map(|(_, took)| *took)
        .max()
        .unwrap_or_default();
    let late = results
        .iter()
        .filter(|(_, took)| *took > Duration::from_millis(500))
        .count();
    println!(
        "{late} of {CLIENTS} connections had chosen the dead backend, the last was open after {longest:?}"
    );
    for (result, took) in &results {
        assert!(result.is_ok(), "{result:?} after {took:?}");
    }
}

/// Keeps asking from one socket, and returns when the first answer of a backend came, and the longest time without any.
fn watch_udp(testbed: &Testbed, change: impl FnOnce(&str)) -> (Duration, Duration) {
    let (report, reports) = mpsc::channel();
    let (announce, first) = mpsc::channel();
    let client = testbed.a.spawn(move || {
        let socket = udp_client(UDP);
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a socket");
        let limit = Duration::from_secs(20) * wait::timeout_factor();
        let mut buffer = [0; 64];
        let mut backend = String::new();
        let (begin, mut last, mut gap) = (Instant::now(), Instant::now(), Duration::ZERO);
        while begin.elapsed() < limit {
            let _pending = socket.send(b"question");
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let from = String::from_utf8_lossy(&buffer[..length]).into_owned();
            gap = gap.max(last.elapsed());
            last = Instant::now();
            if backend.is_empty() {
                backend.clone_from(&from);
                announce.send(from).expect("a waiting test");
            } else if from != backend {
                report.send((Instant::now(), gap)).expect("a waiting test");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let backend = first.recv().expect("an answer");
    change(&backend);
    let changed = Instant::now();
    let moved = reports.recv();
    client.join().expect("a client");
    let (at, gap) = moved.expect("an answer of the other backend");
    (at.saturating_duration_since(changed), gap)
}

#[test]
fn datagrams_of_one_socket_leave_an_unhealthy_backend() {
    let testbed = checked_testbed();
    let (moved, gap) = watch_udp(&testbed, |backend| {
        kill_silently(&testbed, backend);
        let health = BACKENDS.map(|address| address != backend);
        wait_for_health(&testbed, health);
    });
    println!("UDP moved {moved:?} after the health check had noticed, outage {gap:?}");
    assert!(
        moved < Duration::from_secs(1) * wait::timeout_factor(),
        "{moved:?}"
    );
}

#[test]
fn datagrams_of_one_socket_leave_a_draining_backend_unless_flows_are_kept() {
    let testbed = checked_testbed();
    let (moved, gap) = watch_udp(&testbed, |backend| {
        testbed
            .agent
            .cli(&format!("service backend drain shop/web {backend}"));
    });
    println!("UDP moved {moved:?} after the backend was drained, outage {gap:?}");
    assert!(
        moved < Duration::from_secs(1) * wait::timeout_factor(),
        "{moved:?}"
    );
    let testbed = checked_testbed();
    testbed
        .agent
        .cli("service update shop/web --unhealthy-flow-action keep");
    let (open, opened) = mpsc::channel();
    let (next, steps) = mpsc::channel::<()>();
    let client = testbed.a.spawn(move || {
        let socket = udp_client(UDP);
        let limit = Duration::from_secs(5);
        let mut backend = BACKENDS[0];
        ask_until(&socket, |_| true, limit);
        if socket.send(b"question").is_ok() {
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("an answer");
            let from = String::from_utf8_lossy(&buffer[..length]).into_owned();
            backend = BACKENDS[usize::from(from == BACKENDS[1])];
        }
        open.send(backend).expect("a waiting test");
        steps.recv().expect("a step");
        for _ in 0..20 {
            socket.send(b"question").expect("a sent datagram");
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("an answer");
            assert_eq!(&buffer[..length], backend.as_bytes());
        }
    });
    let backend = opened.recv().expect("an answer");
    testbed
        .agent
        .cli(&format!("service backend drain shop/web {backend}"));
    next.send(()).expect("a client");
    client.join().expect("the same backend");
}
