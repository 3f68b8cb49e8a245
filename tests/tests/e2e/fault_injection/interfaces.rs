//! Faults of interfaces and neighbours: traffic of the other interfaces continues, and the status shows each problem.

use std::sync::Arc;

use tests::{
    net::{
        namespace::Namespace,
        process::{fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::agent::Agent,
};

use crate::echo::{EchoSession, start_echo_servers};

#[test]
fn removed_interface_is_reported_and_reused_when_it_returns() {
    let testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    let other = EchoSession::start(&testbed.b);
    other.expect_progress();
    testbed.host.ip("link delete dev gw-a");
    let attachment =
        || testbed.agent.json("network show a/net")["status"]["attachments"][0].clone();
    wait::until_true("the agent to see the removal", || {
        attachment()["state"] == "missing"
    });
    let status = testbed.agent.cli("status");
    assert!(status.contains("there is no interface gw-a"), "{status}");
    other.expect_progress();
    testbed.host.connect("gw-a", &testbed.a);
    testbed.a.ip("address add 10.0.0.5/24 dev eth0");
    wait::until_true("the agent to attach to the interface again", || {
        attachment()["xdp_mode"] == "native"
    });
    EchoSession::start(&testbed.a).expect_progress();
    other.expect_progress();
}

#[test]
fn down_interface_is_reported_with_a_remedy() {
    let testbed = Testbed::with_approved_connections();
    testbed.host.ip("link set dev gw-p down");
    wait::until_true("the agent to report the interface", || {
        testbed.agent.cli("status").contains("gw-p is down")
    });
    let error = fail(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 5 http://{ENDPOINT}:7/")),
    );
    assert!(error.contains("connect"), "{error}");
    assert!(testbed.agent.drop_count("no_backend") > 0);
    testbed.host.ip("link set dev gw-p up");
    testbed.wait_for_backends();
}

#[test]
fn backend_mac_address_change_is_followed() {
    let testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    EchoSession::start(&testbed.a).expect_progress();
    testbed
        .provider
        .ip("link set dev eth0 address 02:00:00:00:99:99");
    for address in BACKENDS {
        // Hosts send such an announcement when an address moves to another interface.
        succeed(
            &mut testbed
                .provider
                .command_line(&format!("arping -q -c 1 -U -I eth0 {address}")),
        );
    }
    EchoSession::start(&testbed.a).expect_progress();
}

#[test]
fn interface_without_native_xdp_is_used_and_reported() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    // A bridge has no native XDP.
    host.ip("link add name slow type bridge");
    host.ip("link set dev slow up");
    agent.cli("tenant create t");
    agent.cli("network create t/net --interface slow");
    let network = agent.json("network show t/net");
    let attachment = &network["status"]["attachments"][0];
    assert_eq!(attachment["xdp_mode"], "generic", "{network}");
    assert!(
        attachment["problems"].to_string().contains("no native XDP"),
        "{network}"
    );
}

#[test]
fn foreign_xdp_program_is_not_replaced() {
    let testbed = Testbed::unconfigured();
    let other = Agent::start(&testbed.host);
    for agent in [&testbed.agent, &other] {
        agent.cli("tenant create t");
    }
    testbed.agent.cli("network create t/net --interface gw-a");
    other.cli("network create t/net --interface gw-a");
    let text = other.cli("status");
    assert!(text.contains("another XDP program is attached"), "{text}");
    let network = testbed.agent.json("network show t/net");
    assert_eq!(network["status"]["attachments"][0]["xdp_mode"], "native");
}
