//! Limits of endpoints, against the clock: rates that are kept, and that are nobody else's.

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
    process::{BackgroundProcess, succeed},
    topology::{BACKENDS, ENDPOINT, Testbed},
    wait,
};

/// Rate below which no limit of these tests lets a stream fall, in Mbit/s. Far below the limits, since iperf3
/// sends in bursts on a busy machine and what is beyond the limit then is lost. What a limit lets through
/// exactly is tested with a clock that is set (`packets/paths/limits.rs`).
const LOW_LIMIT: f64 = 1.0;
/// Rate above all limits of these tests, in Mbit/s.
const HIGH_LIMIT: f64 = 11.5;

/// What arrives of a stream of datagrams of 50 Mbit/s, in Mbit/s, by iperf3's receiver.
fn throughput(site: &Testbed, consumer: &tests::net::namespace::Namespace, port: u16) -> f64 {
    let servers = BACKENDS.map(|address| {
        let mut server = site
            .provider
            .command_line(&format!("iperf3 -s -1 -B {address} -p {port}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        BackgroundProcess::start(&mut server).expect("a server")
    });
    wait::until_true("iperf3", || {
        let sockets = succeed(&mut site.provider.command_line("ss -Hlnt"));
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
    let site = Testbed::with_approved_connections();
    // Both the control connection and the answers are on one server, so that one is asked.
    site.agent
        .cli("service update shop/web --session-affinity client-address --bit-rate 10000000");
    let kept = throughput(&site, &site.a, 5_301);
    assert!(
        (LOW_LIMIT..HIGH_LIMIT).contains(&kept),
        "{kept} Mbit/s of 10"
    );
    site.agent
        .cli("service update shop/web --bit-rate 0 --packet-rate 1000");
    // A thousand packets of 1,228 bytes, of which 1,200 are counted by iperf3.
    let kept = throughput(&site, &site.a, 5_302);
    assert!(
        (LOW_LIMIT..HIGH_LIMIT).contains(&kept),
        "{kept} Mbit/s of 9.6"
    );
    let drops = site.agent.json("endpoint show a/web")["status"]["counters"]["drops"].clone();
    assert!(drops["packet_rate"].as_u64() > Some(0), "{drops}");
    let other = site.agent.json("endpoint show b/web")["status"]["counters"]["drops"].clone();
    assert!(other["packet_rate"].is_null(), "{other}");
    site.agent.cli("service update shop/web --packet-rate 0");
    let free = throughput(&site, &site.a, 5_303);
    assert!(free > HIGH_LIMIT, "{free} Mbit/s without a limit");
}

#[test]
fn new_flow_rate_limit_is_enforced() {
    const SENT: usize = 400;
    const RATE: u64 = 50;
    let site = Testbed::with_approved_connections();
    let received = Arc::new(AtomicU64::new(0));
    for address in BACKENDS {
        let received = Arc::clone(&received);
        let socket = site
            .provider
            .run_in(move || UdpSocket::bind((address, 5_353)).expect("a socket"));
        // Ends with the test process; it only counts.
        std::thread::spawn(move || {
            while socket.recv(&mut [0; 64]).is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    site.agent.cli(&format!(
        "service update shop/web --new-connection-rate {RATE}"
    ));
    let took = site.a.run_in(|| {
        let start = std::time::Instant::now();
        for port in (20_000..).take(SENT) {
            let socket = UdpSocket::bind(("10.0.0.5", port)).expect("a socket");
            socket.send_to(b"x", (ENDPOINT, 5_353)).expect("to send");
        }
        start.elapsed()
    });
    // Each datagram has a port of its own, so that it opens a flow or is dropped for the rate.
    let mut dropped = 0;
    wait::until_true("every datagram to be counted", || {
        let endpoint = site.agent.json("endpoint show a/web");
        let drops = &endpoint["status"]["counters"]["drops"];
        dropped = drops["new_flow_rate"].as_u64().unwrap_or(0);
        dropped + received.load(Ordering::Relaxed) >= SENT as u64
    });
    let received = received.load(Ordering::Relaxed);
    // A second's worth at once, and what the time brings that sending took.
    let max_flows = RATE + RATE * (u64::try_from(took.as_millis()).expect("short") + 999) / 1_000;
    assert!(
        (RATE..=max_flows).contains(&received) && received + dropped == SENT as u64,
        "{received} received and {dropped} dropped in {took:?}"
    );
}

#[test]
fn flows_beyond_the_limit_are_admitted_after_others_end() {
    let site = Testbed::with_approved_connections();
    for address in BACKENDS {
        site.provider.spawn(move || {
            let listener = std::net::TcpListener::bind((address, 7_200)).expect("a listener");
            for stream in listener.incoming() {
                // Open as long as the client's end is.
                std::thread::spawn(move || {
                    let mut stream = stream.expect("a client");
                    std::io::copy(&mut stream, &mut std::io::sink())
                });
            }
        });
    }
    site.agent
        .cli("service update shop/web --connection-limit 3 --tcp-transitory-timeout 5");
    site.a.run_in(|| {
        let address = (ENDPOINT, 7_200);
        let mut streams: Vec<TcpStream> = Vec::new();
        wait::until_true("three connections", || {
            streams.extend(TcpStream::connect(address).ok());
            streams.len() == 3
        });
        let endpoint = "10.0.0.100:7200".parse().expect("an address");
        let fourth = TcpStream::connect_timeout(&endpoint, Duration::from_millis(1_500));
        assert!(fourth.is_err(), "a fourth connection");
    });
    let endpoint = site.agent.json("endpoint show a/web");
    assert!(
        endpoint["status"]["flows"].as_u64() <= Some(3),
        "{endpoint}"
    );
    let drops = &endpoint["status"]["counters"]["drops"];
    assert!(drops["flow_limit"].as_u64() > Some(0), "{drops}");
    // The three are closed; their flows end by time, and make room.
    site.a.run_in(|| {
        wait::until("room", Duration::from_secs(40), || {
            let endpoint = "10.0.0.100:7200".parse().expect("an address");
            TcpStream::connect_timeout(&endpoint, Duration::from_millis(500)).ok()
        });
    });
    // The other endpoint had its own three all the time.
    site.b.run_in(|| {
        TcpStream::connect((ENDPOINT, 7_200)).expect("a connection");
    });
}
