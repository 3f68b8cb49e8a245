//! Access: only approved connections forward packets, and only to the resource that the endpoint is bound to.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tests::{
    net::{
        process::{BackgroundProcess, fail, run, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::nginx::Nginx,
};

use crate::{capture::Capture, curl};

#[test]
fn pending_connection_forwards_no_packets() {
    let testbed = Testbed::new();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let mut capture = Capture::start(&testbed.provider, "eth0", "not arp");
    let error = fail(&mut curl(&testbed.a, &format!("http://{ENDPOINT}/name")));
    // Exit code 7 means that the connection was refused; 28 would mean a timeout.
    assert!(error.contains("curl: (7)"), "{error}");
    assert!(testbed.agent.drop_count("connection_not_approved") > 0);
    let counters = &testbed.agent.json("endpoint show a/web")["status"]["counters"];
    let dropped = counters["drops"]["connection_not_approved"].as_u64();
    assert!(dropped > Some(0), "{counters}");
    // Lists leave the drop reasons out, because each reason costs a system call.
    let counters = &testbed.agent.json("endpoint list a")[0]["status"]["counters"];
    assert_eq!(counters["flows_opened"], 0, "{counters}");
    assert!(counters["drops"].is_null(), "{counters}");
    testbed.agent.cli("connection approve a/web");
    succeed(&mut curl(&testbed.a, &format!("http://{ENDPOINT}/name")));
    // The connection of tenant b is still pending.
    fail(&mut curl(&testbed.b, &format!("http://{ENDPOINT}/name")));
    let text = capture.text();
    let syns = text
        .lines()
        .filter(|line| line.contains("Flags [S]"))
        .count();
    assert_eq!(syns, 1, "SYNs besides the approved connection's:\n{text}");
}

#[test]
fn iperf3_ends_when_the_connection_is_rejected() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| {
        let mut server = testbed
            .provider
            .command_line(&format!("iperf3 -s -B {address}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = BackgroundProcess::start(&mut server).expect("iperf3");
        wait::until_true("iperf3 to listen", || {
            let line = format!("ss -Hltn src {address}:5201");
            !succeed(&mut testbed.provider.command_line(&line)).is_empty()
        });
        server
    });
    // iperf3 opens a control and a data connection, which must reach the same server.
    let [one, _] = BACKENDS;
    testbed
        .agent
        .cli(&format!("service backend drain shop/web {}", BACKENDS[1]));
    let before = testbed.agent.json("status")["drops"].clone();
    let mut command = testbed
        .a
        .command_line(&format!("iperf3 -J -t 3 -c {ENDPOINT}"));
    let report = run(&mut command, Duration::from_secs(30)).expect("iperf3");
    let report: Value = serde_json::from_slice(&report.stdout).expect("a report");
    let rate = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or(0.0);
    assert!(rate > 1e6, "throughput of {rate} bit/s to {one}: {report}");
    assert_eq!(
        before,
        testbed.agent.json("status")["drops"],
        "the gateway dropped packets of an approved connection"
    );

    let mut client = testbed
        .a
        .command_line(&format!("iperf3 -t 60 -c {ENDPOINT}"));
    client.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = BackgroundProcess::start(&mut client).expect("iperf3");
    let forwarded_bytes = || {
        testbed.agent.json("endpoint show a/web")["status"]["counters"]["bytes_to_service"]
            .as_u64()
            .expect("a number")
    };
    let first = forwarded_bytes();
    wait::until_true("iperf3 to send 10 MB", || {
        forwarded_bytes() > first + 10_000_000
    });
    testbed.agent.cli("connection reject a/web --reason enough");
    let at_rejection = forwarded_bytes();
    wait::until_true("iperf3 to exit", || client.has_exited());
    assert_eq!(
        forwarded_bytes(),
        at_rejection,
        "packets were forwarded after the rejection"
    );
    assert!(testbed.agent.drop_count("connection_revoked") > 0);
}

#[test]
fn consumer_reaches_only_its_bound_resource() {
    let testbed = Testbed::with_approved_connections();
    let _server = Nginx::start(&testbed.provider, BACKENDS[0]);
    // The host has an address in both networks, and a server that listens on all addresses.
    testbed.host.ip("address add 10.0.0.1/24 dev gw-a");
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    testbed.host.spawn(|| {
        let listener = std::net::TcpListener::bind(("0.0.0.0", 80)).expect("a listener");
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    testbed.a.ip("route add default via 10.0.0.1");
    testbed
        .a
        .ip("neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0");
    let mac = testbed.host.ip("-br link show dev gw-a");
    let mac = mac
        .split_whitespace()
        .nth(2)
        .expect("an address")
        .to_owned();
    testbed
        .a
        .ip(&format!("neighbour replace 10.0.0.1 lladdr {mac} dev eth0"));
    for (target, address) in [
        ("the host", "10.0.0.1"),
        ("the host's other address", "10.1.0.1"),
        ("a backend", BACKENDS[0]),
        ("a source NAT address", "10.1.0.64"),
        ("an unknown address", "10.9.9.9"),
    ] {
        let before = testbed.agent.drop_count("no_such_endpoint");
        let mut command = testbed
            .a
            .command_line(&format!("curl -sS -m 1 http://{address}/name"));
        fail(&mut command);
        assert!(
            testbed.agent.drop_count("no_such_endpoint") > before,
            "no packet to {target} ({address}) was dropped as no_such_endpoint"
        );
    }
    // The provider reaches the host, because its network is not isolated.
    let mut command = testbed
        .provider
        .command_line("curl -sS -m 5 http://10.1.0.1/");
    let answer = fail(&mut command);
    assert!(
        answer.contains("Empty reply") || answer.contains("reset"),
        "{answer}"
    );
}
