//! Two providers whose networks have the same prefix, and the host's reverse path filter.

use std::{fs, net::TcpListener, time::Duration};

use tests::net::{
    namespace::Namespace,
    topology::{BACKENDS, Testbed},
    wait,
};

/// Time within which the health of a backend follows a setting, with a check each second.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(8);

/// Port of the servers.
const PORT: u16 = 8_080;

/// Starts a server on the first backend's address. It runs until the test process exits.
fn serve(provider: &Namespace) {
    let [address, _] = BACKENDS;
    let listener = provider.run_in(move || TcpListener::bind((address, PORT)).expect("a listener"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
}

/// Sets the filter of the host's interfaces.
fn set_filter(testbed: &Testbed, value: &'static str) {
    testbed.host.run_in(move || {
        for (interface, value) in [("all", "0"), ("gw-p", value), ("gw-p2", value)] {
            let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
            fs::write(path, value).expect("a setting");
        }
    });
}

/// Waits until the health of a service's backend is this one, and returns its problem.
#[track_caller]
fn wait_for_health(testbed: &Testbed, service: &str, healthy: bool) -> String {
    let what = format!("{service} to have a backend whose health is {healthy}");
    wait::until(&what, HEALTH_TIMEOUT, || {
        let shown = testbed.agent.json(&format!("service show {service}"));
        let backend = &shown["status"]["backends"][0];
        (backend["healthy"] == healthy).then(|| backend["problem"].to_string())
    })
}

#[test]
fn health_checks_of_two_networks_with_one_prefix_work_or_name_the_filter() {
    let testbed = Testbed::unconfigured();
    let second = Namespace::new("p2");
    testbed.host.connect("gw-p2", &second);
    let [backend, _] = BACKENDS;
    second.ip(&format!("address add {backend}/24 dev eth0"));
    // The host has an address of its own in each network. Its route to the prefix is the first one's.
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    testbed.host.ip("address add 10.1.0.2/24 dev gw-p2");
    for provider in [&testbed.provider, &second] {
        serve(provider);
    }
    set_filter(&testbed, "0");
    for (tenant, interface) in [("one", "gw-p"), ("two", "gw-p2")] {
        testbed.agent.cli(&format!("tenant create {tenant}"));
        testbed.agent.cli(&format!(
            "network create {tenant}/net --interface {interface}"
        ));
        testbed.agent.cli(&format!(
            "service create {tenant}/web --network net --port {PORT} --backend {backend} --nat 10.1.0.64/28 \
             --health-check tcp --health-interval 1 --health-timeout 1 --healthy-threshold 1 \
             --unhealthy-threshold 1"
        ));
    }
    for (value, second_is_healthy) in [("0", true), ("1", false), ("2", true)] {
        set_filter(&testbed, value);
        let problem = wait_for_health(&testbed, "two/web", second_is_healthy);
        if !second_is_healthy {
            let expected = "net.ipv4.conf.gw-p2.rp_filter is 1 and the host's route to 10.1.0.10 is not through \
                            gw-p2, so the kernel drops the answers: set net.ipv4.conf.gw-p2.rp_filter to 2";
            assert!(problem.contains(expected), "{problem}");
        }
        wait_for_health(&testbed, "one/web", true);
    }
}
