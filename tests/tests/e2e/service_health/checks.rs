//! UDP checks, services that fail open, and services of which every backend is unhealthy.

use std::net::SocketAddr;

use tests::{
    net::{
        families::{Families, for_each_family_pair},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::agent::Agent,
};

use crate::servers::{TcpServer, UdpServer, WebhookReceiver, echo};

/// Settings of a check that sees a change within a second.
const QUICK: &str =
    "--health-interval 1 --health-timeout 1 --healthy-threshold 1 --unhealthy-threshold 1";

/// Waits until the first backend is healthy, or unhealthy for this reason.
#[track_caller]
fn wait_for_health(agent: &Agent, healthy: bool, reason: &str) {
    wait::until_true(&format!("health {healthy} {reason}"), || {
        let service = agent.json("service show shop/web");
        let backend = &service["status"]["backends"][0];
        let problem = backend["problem"].as_str().unwrap_or_default();
        backend["healthy"] == healthy && problem.contains(reason)
    });
}

#[test]
fn udp_checks_follow_answers_and_icmp_errors() {
    for_each_family_pair(|families, testbed| {
        testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
        testbed.host.ip("address add fd00:1::1/64 dev gw-p nodad");
        let agent = &testbed.agent;
        // The service offers every port, so a check without a port would probe none.
        for kind in ["tcp", "udp"] {
            let refusal =
                agent.cli_error(&format!("service update shop/web --health-check {kind}"));
            assert!(
                refusal.contains("offers no single") && refusal.contains("--health-port"),
                "{refusal}"
            );
        }
        agent.cli(&format!(
            "service update shop/web --health-check udp --health-port 5353 --health-send ping\\n \
             --health-expect pong {QUICK}"
        ));
        let address = SocketAddr::new(families.backend(), 5_353);
        wait_for_health(agent, false, "refused");
        let server = UdpServer::start(&testbed.provider, address, b"pong 1");
        wait_for_health(agent, true, "");
        drop(server);
        let server = UdpServer::start(&testbed.provider, address, b"nope");
        wait_for_health(agent, false, "does not begin with \"pong\"");
        drop(server);
        let server = UdpServer::start(&testbed.provider, address, b"");
        wait_for_health(agent, false, "timed out");
        // Silence is enough if no answer is expected.
        agent.cli("service update shop/web --health-expect=");
        wait_for_health(agent, true, "");
        drop(server);
        wait_for_health(agent, false, "refused");
    });
}

#[test]
fn a_service_that_fails_open_uses_unhealthy_backends() {
    let families = Families::V4ToV4;
    let testbed = families.testbed();
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    let agent = &testbed.agent;
    let backend = SocketAddr::new(families.backend(), 7_301);
    let _server = TcpServer::start(&testbed.provider, backend);
    let endpoint = SocketAddr::new(families.endpoint(), 7_301);
    // The check is wrong: nothing listens at its port.
    agent.cli(&format!(
        "service update shop/web --health-check tcp --health-port 9 --unhealthy-flow-action reset \
         {QUICK}"
    ));
    wait_for_health(agent, false, "refused");
    wait::until_true("new flows to be rejected", || {
        echo(&testbed.a, endpoint).is_err()
    });
    agent.cli("service update shop/web --no-healthy-backend use-all");
    echo(&testbed.a, endpoint).expect("an echo");
    let service = agent.json("service show shop/web");
    assert_eq!(
        service["status"]["problems"][0],
        "resource default has no healthy backend in rotation (of 1): all reachable ones are used"
    );
    let status = agent.json("endpoint show a/web");
    assert_eq!(status["status"]["service_available"], true);
    agent.cli("service update shop/web --no-healthy-backend reset");
    assert!(echo(&testbed.a, endpoint).is_err());
}

#[test]
fn death_of_every_backend_is_shown_where_one_looks() {
    let testbed = Testbed::unconfigured_with(&[("PLGW_WEBHOOK_NETWORKS", "10.1.0.0/24")]);
    testbed.configure();
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    let agent = &testbed.agent;
    let backends =
        BACKENDS.map(|address| SocketAddr::new(address.parse().expect("an address"), 7_302));
    let receiver = SocketAddr::new(backends[0].ip(), 8_080);
    let receiver = WebhookReceiver::start(&testbed.provider, receiver);
    agent.cli("tenant webhook create shop/desk --url http://10.1.0.10:8080/");
    agent.cli("connection approve a/web");
    let start = || backends.map(|address| TcpServer::start(&testbed.provider, address));
    let servers = start();
    agent.cli(&format!(
        "service update shop/web --health-check tcp --health-port 7302 {QUICK}"
    ));
    let counts = |wanted: &str| agent.cli("service list").contains(wanted);
    wait_for_health(agent, true, "");
    assert!(counts("2/2"), "{}", agent.cli("service list"));
    let endpoint = SocketAddr::new(ENDPOINT.parse().expect("an address"), 7_302);
    echo(&testbed.a, endpoint).expect("an echo");

    drop(servers);
    wait::until_true("both backends to be unhealthy", || counts("0/2"));
    let status = agent.json("status");
    let problems = status["problems"].to_string();
    for says in [
        "service shop/web: resource default has no healthy backend in rotation (of 2): new flows are rejected",
        "backend 10.1.0.10 of service shop/web, resource default, is unhealthy: Connection refused",
        "backend 10.1.0.11 of service shop/web",
    ] {
        assert!(problems.contains(says), "{problems}");
    }
    assert_eq!(status["backends"]["available"], 0);
    assert!(agent.cli("status").contains("0 of 2 available"));
    // A balancer in front of several gateways must not take this one out for a tenant's servers.
    assert_eq!(agent.http("GET", "/readyz", None).0, 200);
    let shown = agent.json("endpoint show a/web");
    assert_eq!(shown["status"]["service_available"], false);
    let shown = agent.cli("endpoint show a/web");
    assert!(
        shown.contains("the service has no backend") && !shown.contains("10.1.0."),
        "{shown}"
    );
    for (action, count) in [("unhealthy", 2), ("unavailable", 1)] {
        wait::until_true(&format!("events {action}"), || {
            let events = agent.json(&format!("event list --kind service --action {action}"));
            events
                .as_array()
                .is_some_and(|events| events.len() == count)
        });
        wait::until_true(&format!("a webhook {action}"), || {
            receiver.has_action(action)
        });
    }
    let events = agent.cli("event list --action unavailable");
    assert!(
        events.contains("shop/web") && events.contains("health check"),
        "{events}"
    );

    let _servers = start();
    wait::until_true("both backends to be healthy", || counts("2/2"));
    wait::until_true("a webhook about the recovery", || {
        receiver.has_action("healthy") && receiver.has_action("available")
    });
    echo(&testbed.a, endpoint).expect("an echo");
}
