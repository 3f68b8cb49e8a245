//! Claims of SNAT addresses: they are probed before they are used, and defended afterwards.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;
use tests::net::{families::Families, process::succeed, topology::Testbed, wait};

use crate::{
    echo::{self, Session},
    watch::mac_of,
};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a testbed whose agent probes addresses, with a server and without a service.
fn testbed(families: Families) -> Testbed {
    let mut testbed = families.testbed();
    testbed.agent.cli("endpoint delete a/web");
    testbed.agent.cli("service delete shop/web");
    testbed.agent.stop();
    testbed
        .agent
        .settings
        .insert("PLGW_ADDRESS_PROBES".to_owned(), "3".to_owned());
    testbed
        .agent
        .settings
        .insert("PLGW_ADDRESS_PROBE_INTERVAL".to_owned(), "100".to_owned());
    testbed.agent.restart();
    echo::serve(&testbed.provider, families.backend());
    testbed
}

/// Creates the service with these SNAT addresses, and an endpoint.
fn create(testbed: &Testbed, families: Families, nat: &str) {
    testbed.agent.cli(&format!(
        "service create shop/web --network net --port 80 --backend {} --nat {nat} --visibility * \
         --auto-approval *",
        families.backend()
    ));
    testbed.agent.cli(&format!(
        "endpoint create a/web --network net --address {} --service shop/web",
        families.endpoint()
    ));
    testbed.wait_for_backends();
}

fn service(testbed: &Testbed) -> Value {
    testbed.agent.json("service show shop/web")
}

/// Returns the state of a SNAT address, if it is shown.
fn nat_state(testbed: &Testbed, address: &str) -> Option<String> {
    let service = service(testbed);
    let addresses = service["status"]["nat_addresses"].as_array()?;
    let found = addresses.iter().find(|found| found["address"] == address)?;
    found["state"].as_str().map(str::to_owned)
}

#[track_caller]
fn wait_for_nat_state(testbed: &Testbed, address: &str, state: Option<&str>) {
    wait::until_true(&format!("{address} to be {state:?}"), || {
        nat_state(testbed, address).as_deref() == state
    });
}

/// Connects until it succeeds.
#[track_caller]
fn connect(testbed: &Testbed, to: IpAddr) -> Session {
    wait::until("a connection", wait::DEFAULT_TIMEOUT, || {
        Session::connect(&testbed.a, to, SECOND).ok()
    })
}

#[test]
fn snat_address_of_another_host_is_not_used() {
    for (families, other, nat, bits) in [
        (Families::V4ToV4, "10.1.0.41", "10.1.0.40-10.1.0.43", 24),
        (Families::V6ToV6, "fd00:1::41", "fd00:1::40-fd00:1::43", 64),
    ] {
        let testbed = testbed(families);
        let nodad = if bits == 64 { "nodad" } else { "" };
        testbed
            .provider
            .ip(&format!("address add {other}/{bits} dev eth0 {nodad}"));
        create(&testbed, families, nat);
        wait_for_nat_state(&testbed, other, Some("conflict"));
        // The others are in use, and so is the service.
        let free = other.replace("41", "40");
        wait::until_true("the other addresses to be claimed", || {
            nat_state(&testbed, &free).is_none_or(|state| state == "in_use")
        });
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            seen.insert(connect(&testbed, families.endpoint()).seen_as.to_string());
        }
        assert!(!seen.contains(other), "{seen:?}");
        let shown = service(&testbed);
        let problem = shown["status"]["problems"][0].as_str().unwrap_or_default();
        let mac = mac_of(&testbed.provider, "eth0");
        assert!(
            problem.contains(other) && problem.contains(&mac) && problem.contains("choose another"),
            "{problem}"
        );
        assert!(testbed.agent.drop_count("address_conflict") > 0);
    }
}

#[test]
fn snat_address_in_use_is_defended_and_adopted_by_a_restarted_agent() {
    let families = Families::V4ToV4;
    let mut testbed = testbed(families);
    create(&testbed, families, "10.1.0.40");
    let mut session = connect(&testbed, families.endpoint());
    testbed.agent.kill();
    testbed.agent.restart();
    // No probing, so new connections succeed at once.
    assert!(!matches!(nat_state(&testbed, "10.1.0.40"), Some(state) if state != "in_use"));
    Session::connect(&testbed.a, families.endpoint(), SECOND).expect("a connection");
    session.exchange(SECOND).expect("an open connection");
    testbed.provider.ip("address add 10.1.0.40/24 dev eth0");
    succeed(
        &mut testbed
            .provider
            .command_line("arping -c 1 -U -I eth0 10.1.0.40"),
    );
    wait_for_nat_state(&testbed, "10.1.0.40", Some("disputed"));
    let shown = service(&testbed);
    let problem = shown["status"]["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains("claims address 10.1.0.40"), "{problem}");
    testbed.provider.ip("address del 10.1.0.40/24 dev eth0");
    connect(&testbed, families.endpoint());
}

#[test]
fn snat_addresses_that_no_host_can_have_are_refused() {
    let families = Families::V4ToV4;
    let testbed = testbed(families);
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    testbed.agent.cli(
        "network update shop/net --interface gw-p --prefix 10.1.0.0/24 --prefix fd00:1::/64 \
         --router 10.1.0.254",
    );
    wait::until_true("the host's address to be known", || {
        let refused = testbed.agent.cli_error(
            "service create shop/x --network net --port 80 --backend 10.1.0.1 --nat 10.1.0.40",
        );
        refused.contains("gateway host's own")
    });
    for (nat, says) in [
        (
            "10.1.0.1",
            "is the gateway host's own on gw-p: choose another",
        ),
        (
            "10.1.0.0/30",
            "the address of the network itself: choose addresses without it",
        ),
        (
            "10.1.0.252/30",
            "10.1.0.254, a router of the network: choose addresses without it",
        ),
        (
            "10.2.0.40",
            "not wholly within one of the network's prefixes: choose other addresses",
        ),
        (
            "fd00:1::/124",
            "fd00:1::, the anycast address of the network's routers",
        ),
    ] {
        let backend = if nat.contains(':') {
            "fd00:1::10"
        } else {
            "10.1.0.10"
        };
        let error = testbed.agent.cli_error(&format!(
            "service create shop/web --network net --port 80 --backend {backend} --nat {nat}"
        ));
        let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(error.contains(says), "{nat}: {error}");
    }
}
