//! Limits of endpoints, measured in real time: rates are enforced, and each endpoint has its own.

use std::{
    net::{TcpStream, UdpSocket},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tests::net::{
    namespace::Namespace,
    process::{BackgroundProcess, succeed},
    topology::{BACKENDS, ENDPOINT, Testbed},
    wait,
};

/// Minimum throughput of a limited stream, in Mbit/s. It is far below the limits, because iperf3 sends in bursts on
/// a busy machine and the packets of a burst beyond the limit are dropped. The packet tests check the exact rates,
/// with a simulated clock (`datapath/scenarios/limits.rs`).
const LOW_LIMIT: f64 = 1.0;
/// Maximum throughput of a limited stream, in Mbit/s: a little more than the highest limit of these tests.
const HIGH_LIMIT: f64 = 11.5;

/// Sends a UDP stream of 50 Mbit/s through the endpoint. Returns the rate that iperf3's receiver measured, in Mbit/s.
fn throughput(testbed: &Testbed, consumer: &Namespace, port: u16) -> f64 {
    let servers = BACKENDS.map(|address| {
        let mut server = testbed
            .provider
            .command_line(&format!("iperf3 -s -1 -B {address} -p {port}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        BackgroundProcess::start(&mut server).expect("a server")
    });
    wait::until_true("both iperf3 servers to listen", || {
        let sockets = succeed(&mut testbed.provider.command_line("ss -Hlnt"));
        sockets.matches(&format!(":{port} ")).count() == 2
    });
    let text = succeed(&mut consumer.command_line(&format!(
        "iperf3 -J -u -b 50M -l 1200 -t 3 -c {ENDPOINT} -p {port}"
    )));
    drop(servers);
    let result: Value = serde_json::from_str(&text).expect("JSON");
    let received = &result["end"]["sum_received"];
    received["bits_per_second"].as_f64().expect("a rate") / 1e6
}

#[test]
fn bit_and_packet_rate_limits_are_enforced() {
    let testbed = Testbed::with_approved_connections();
    // iperf3's control connection and its stream must reach the same server.
    testbed
        .agent
        .cli("service update shop/web --session-affinity client-address --bit-rate 10000000");
    let limited = throughput(&testbed, &testbed.a, 5_301);
    assert!(
        (LOW_LIMIT..HIGH_LIMIT).contains(&limited),
        "{limited} Mbit/s with a limit of 10"
    );
    testbed
        .agent
        .cli("service update shop/web --bit-rate 0 --packet-rate 1000");
    // 1,000 packets a second of 1,228 bytes each, of which iperf3 counts the 1,200 bytes of payload.
    let limited = throughput(&testbed, &testbed.a, 5_302);
    assert!(
        (LOW_LIMIT..HIGH_LIMIT).contains(&limited),
        "{limited} Mbit/s with a limit of 9.6"
    );
    let drops = testbed.agent.json("endpoint show a/web")["status"]["counters"]["drops"].clone();
    assert!(drops["packet_rate"].as_u64() > Some(0), "{drops}");
    let other = testbed.agent.json("endpoint show b/web")["status"]["counters"]["drops"].clone();
    assert!(other["packet_rate"].is_null(), "{other}");
    testbed.agent.cli("service update shop/web --packet-rate 0");
    let free = throughput(&testbed, &testbed.a, 5_303);
    assert!(free > HIGH_LIMIT, "{free} Mbit/s without a limit");
}

#[test]
fn new_flow_rate_limit_is_enforced() {
    const SENT: usize = 400;
    const RATE: u64 = 50;
    let testbed = Testbed::with_approved_connections();
    let received = Arc::new(AtomicU64::new(0));
    for address in BACKENDS {
        let received = Arc::clone(&received);
        let socket = testbed
            .provider
            .run_in(move || UdpSocket::bind((address, 5_353)).expect("a socket"));
        // The receiver runs until the test process exits.
        std::thread::spawn(move || {
            while socket.recv(&mut [0; 64]).is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    testbed.agent.cli(&format!(
        "service update shop/web --new-connection-rate {RATE}"
    ));
    let took = testbed.a.run_in(|| {
        let start = std::time::Instant::now();
        for port in (20_000..).take(SENT) {
            let socket = UdpSocket::bind(("10.0.0.5", port)).expect("a socket");
            socket
                .send_to(b"x", (ENDPOINT, 5_353))
                .expect("a sent datagram");
        }
        start.elapsed()
    });
    // Each datagram has a different source port, so it opens a flow or is dropped by the rate limit.
    let mut dropped = 0;
    wait::until_true("every datagram to be received or dropped", || {
        let endpoint = testbed.agent.json("endpoint show a/web");
        let drops = &endpoint["status"]["counters"]["drops"];
        dropped = drops["new_flow_rate"].as_u64().unwrap_or(0);
        dropped + received.load(Ordering::Relaxed) >= SENT as u64
    });
    let received = received.load(Ordering::Relaxed);
    // A burst of one second's flows passes at once. The rest is limited by the time that the sender took.
    let max_flows = RATE + RATE * (u64::try_from(took.as_millis()).expect("short") + 999) / 1_000;
    assert!(
        (RATE..=max_flows).contains(&received) && received + dropped == SENT as u64,
        "{received} received and {dropped} dropped in {took:?}"
    );
}

#[test]
fn flows_beyond_the_limit_are_admitted_after_others_end() {
    let testbed = Testbed::with_approved_connections();
    for address in BACKENDS {
        testbed.provider.spawn(move || {
            let listener = std::net::TcpListener::bind((address, 7_200)).expect("a listener");
            for stream in listener.incoming() {
                // The server's end stays open until the client closes its end.
                std::thread::spawn(move || {
                    let mut stream = stream.expect("a client");
                    std::io::copy(&mut stream, &mut std::io::sink())
                });
            }
        });
    }
    testbed
        .agent
        .cli("service update shop/web --connection-limit 3 --tcp-transitory-timeout 5");
    testbed.a.run_in(|| {
        let address = (ENDPOINT, 7_200);
        let mut streams: Vec<TcpStream> = Vec::new();
        wait::until_true("three connections", || {
            streams.extend(TcpStream::connect(address).ok());
            streams.len() == 3
        });
        let endpoint = "10.0.0.100:7200".parse().expect("an address");
        let fourth = TcpStream::connect_timeout(&endpoint, Duration::from_millis(1_500));
        assert!(fourth.is_err(), "a fourth connection was established");
    });
    let endpoint = testbed.agent.json("endpoint show a/web");
    assert!(
        endpoint["status"]["flows"].as_u64() <= Some(3),
        "{endpoint}"
    );
    let drops = &endpoint["status"]["counters"]["drops"];
    assert!(drops["flow_limit"].as_u64() > Some(0), "{drops}");
    // The client has closed its three connections. After the transitory timeout their flows expire, and a new one is
    // admitted.
    testbed.a.run_in(|| {
        wait::until(
            "a connection to be admitted",
            Duration::from_secs(40),
            || {
                let endpoint = "10.0.0.100:7200".parse().expect("an address");
                TcpStream::connect_timeout(&endpoint, Duration::from_millis(500)).ok()
            },
        );
    });
    // The limit of the other endpoint is unaffected.
    testbed.b.run_in(|| {
        TcpStream::connect((ENDPOINT, 7_200)).expect("a connection");
    });
}
