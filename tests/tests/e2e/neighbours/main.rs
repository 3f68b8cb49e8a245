//! Resolution of backends' MAC addresses: whatever happens to the host's neighbour table, its addresses and its MAC
//! addresses, services go on, and the outage that clients see is stated.

mod meter;
mod scene;
mod sender;

use std::{
    fs,
    time::{Duration, Instant},
};

use tests::net::{namespace::Namespace, wait};

use scene::{BACKENDS, Scene, expect_outages_below, expect_short_outages};

/// Longest time until a reachable neighbour is confirmed again, and two seconds for the questions.
const CONFIRMATION: Duration = Duration::from_secs(33);

/// MAC address that no interface has at first.
const OTHER_MAC: &str = "02:00:00:00:99:99";

/// Sets a setting of the kernel in a namespace.
#[track_caller]
fn set_sysctl(namespace: &Namespace, name: &str, value: &'static str) {
    let path = format!("/proc/sys/{name}");
    namespace
        .run_in(move || fs::write(path, value))
        .expect("a setting");
}

#[test]
fn flushed_neighbour_table_interrupts_nothing() {
    let mut scene = Scene::without_configuration();
    scene.testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    scene.testbed.host.enable_ipv6("gw-p", &["fd00:1::1"]);
    scene.configure();
    for backend in BACKENDS {
        scene.wait_until_reachable(&backend);
    }
    let meters = scene.start_meters();
    for _ in 0..3 {
        scene.testbed.host.ip("neigh flush dev gw-p");
        scene.testbed.host.ip("-6 neigh flush dev gw-p");
        for (_, _, meter) in &meters {
            meter.expect_answers();
        }
    }
    expect_short_outages("neighbour table flushed", meters);
    // A restarted agent, with no help of the kernel's table.
    let meters = scene.start_meters();
    scene.testbed.agent.kill();
    scene.testbed.host.ip("neigh flush dev gw-p");
    // An entry as earlier versions of the agent left it.
    let host = &scene.testbed.host;
    host.ip("neigh replace 10.1.0.10 managed dev gw-p");
    assert!(host.ip("neigh show dev gw-p").contains("managed"));
    scene.testbed.agent.restart();
    for backend in BACKENDS {
        assert_eq!(scene.status(&backend)["reachable"], true);
    }
    assert!(
        !scene
            .testbed
            .host
            .ip("neigh show dev gw-p")
            .contains("managed")
    );
    expect_short_outages("table flushed and agent restarted", meters);
}

#[test]
fn removed_and_returned_address_interrupts_nothing() {
    let scene = Scene::without_configuration();
    scene.testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    scene.testbed.host.enable_ipv6("gw-p", &["fd00:1::1"]);
    scene.configure();
    for backend in BACKENDS {
        scene.wait_until_reachable(&backend);
    }
    let meters = scene.start_meters();
    for change in [
        "address flush dev gw-p",
        "address add 10.1.0.1/24 dev gw-p",
        "-6 address add fd00:1::1/64 dev gw-p nodad",
    ] {
        scene.testbed.host.ip(change);
        for (_, _, meter) in &meters {
            meter.expect_answers();
        }
    }
    expect_short_outages("last address removed and put back", meters);
    // Backends that are asked for while there is no address.
    scene.testbed.host.ip("address flush dev gw-p");
    scene.testbed.host.ip("link set dev gw-p down");
    let start = Instant::now();
    scene.testbed.host.ip("link set dev gw-p up");
    for backend in BACKENDS {
        scene.wait_until_reachable(&backend);
    }
    println!(
        "interface without addresses down and up: resolved after {:.2} s",
        start.elapsed().as_secs_f64()
    );
    let meters = scene.start_meters();
    expect_short_outages("interface without addresses", meters);
}

#[test]
fn new_mac_address_of_the_gateway_interrupts_little() {
    let scene = Scene::new();
    let meters = scene.start_meters();
    scene
        .testbed
        .host
        .ip(&format!("link set dev gw-p address {OTHER_MAC}"));
    expect_short_outages("new MAC address of the gateway's interface", meters);
}

#[test]
fn announced_mac_address_of_a_backend_counts_at_once() {
    let scene = Scene::new();
    set_sysctl(
        &scene.testbed.provider,
        "net/ipv4/conf/eth0/arp_notify",
        "1",
    );
    set_sysctl(
        &scene.testbed.provider,
        "net/ipv6/conf/eth0/ndisc_notify",
        "1",
    );
    let meters = scene.start_meters();
    scene.set_provider_mac(OTHER_MAC);
    expect_short_outages("new MAC address of the backend, announced", meters);
}

#[test]
fn announcement_reaches_the_agent_through_an_isolated_network() {
    let scene = Scene::new();
    scene
        .testbed
        .agent
        .cli("network update shop/net --interface gw-p --isolated true");
    set_sysctl(
        &scene.testbed.provider,
        "net/ipv4/conf/eth0/arp_notify",
        "1",
    );
    set_sysctl(
        &scene.testbed.provider,
        "net/ipv6/conf/eth0/ndisc_notify",
        "1",
    );
    let meters = scene.start_meters();
    scene.set_provider_mac(OTHER_MAC);
    expect_short_outages(
        "new MAC address of the backend, announced in an isolated network",
        meters,
    );
}

#[test]
fn silent_new_mac_address_of_a_backend_is_found_by_confirmation() {
    let scene = Scene::new();
    let meters = scene.start_meters();
    scene.set_provider_mac(OTHER_MAC);
    expect_outages_below(
        "new MAC address of the backend, not announced",
        CONFIRMATION,
        meters,
    );
}

#[test]
fn silent_new_mac_address_is_found_sooner_by_health_checks() {
    let scene = Scene::without_configuration();
    scene.testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    scene.testbed.host.enable_ipv6("gw-p", &["fd00:1::1"]);
    scene.configure();
    for backend in BACKENDS {
        scene.wait_until_reachable(&backend);
        let address = scene::address(backend.address);
        let listener = scene
            .testbed
            .provider
            .run_in(move || std::net::TcpListener::bind((address, 80)).expect("a server"));
        std::thread::spawn(move || listener.incoming().for_each(drop));
        scene.testbed.agent.cli(&format!(
            "service update shop/{} --health-check tcp --health-port 80 --health-interval 1 --health-timeout 1",
            backend.name
        ));
        wait::until_true("the backend to be healthy", || {
            scene.status(&backend)["healthy"] == true
        });
    }
    let meters = scene.start_meters();
    scene.set_provider_mac(OTHER_MAC);
    expect_short_outages(
        "new MAC address of the backend, not announced, health checks",
        meters,
    );
}

#[test]
fn backend_that_comes_up_is_found_within_a_second() {
    let scene = Scene::without_configuration();
    for backend in BACKENDS {
        let assigned = backend.assigned;
        scene
            .testbed
            .provider
            .ip(&format!("address delete {assigned} dev eth0"));
    }
    scene.configure();
    for backend in BACKENDS {
        let expected = format!("{} does not answer on gw-p: asked by ", backend.address);
        wait::until_true("the backend to be reported", || {
            scene.problem(&backend).starts_with(&expected)
        });
        let problem = scene.problem(&backend);
        let sender = format!(" from {} every second since ", backend.snat);
        assert!(problem.contains(&sender), "{problem}");
        assert!(
            problem.ends_with(" requests)") || problem.ends_with(" solicitations)"),
            "{problem}"
        );
        let status = scene.testbed.agent.cli("status");
        let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status.contains(&expected), "{status}");
    }
    // The log has one line for each, however often the status is read.
    let log = scene.testbed.agent.log();
    let lines = log.matches("host: backend unreachable").count();
    assert_eq!(lines, BACKENDS.len(), "{log}");
    for backend in BACKENDS {
        let assigned = backend.assigned;
        let options = if assigned.contains(':') { "nodad" } else { "" };
        let start = Instant::now();
        scene
            .testbed
            .provider
            .ip(&format!("address add {assigned} dev eth0 {options}"));
        scene.wait_until_reachable(&backend);
        let elapsed = start.elapsed();
        println!(
            "backend {} comes up: reachable after {:.2} s",
            backend.address,
            elapsed.as_secs_f64()
        );
        assert!(elapsed < Duration::from_secs(3) * wait::timeout_factor());
    }
    expect_short_outages("backend that came up", scene.start_meters());
}

#[test]
fn lost_carrier_is_noticed_and_backends_are_found_when_it_returns() {
    let scene = Scene::new();
    scene.testbed.provider.ip("link set dev eth0 down");
    for backend in BACKENDS {
        wait::until_true("the backend to be reported", || {
            scene.problem(&backend).contains("without carrier")
        });
    }
    scene.testbed.provider.ip("link set dev eth0 up");
    let start = Instant::now();
    // The kernel removes IPv6 addresses from an interface that is down.
    scene.testbed.provider.enable_ipv6("eth0", &["fd00:1::10"]);
    for backend in BACKENDS {
        scene.wait_until_reachable(&backend);
    }
    let elapsed = start.elapsed();
    println!(
        "carrier returned: reachable after {:.2} s",
        elapsed.as_secs_f64()
    );
    assert!(elapsed < Duration::from_secs(3) * wait::timeout_factor());
    expect_short_outages("carrier returned", scene.start_meters());
}
