//! SNAT addresses that leave their service while flows use them.

use std::{net::IpAddr, time::Duration};

use tests::net::{families::Families, topology::Testbed, wait};

use crate::echo::{self, Session};

const SECOND: Duration = Duration::from_secs(1);

/// Returns true if the provider's host gets an answer for the address.
fn answers(testbed: &Testbed, address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    testbed
        .provider
        .ip(&format!("{family} neigh flush dev eth0"));
    let mut ping = testbed
        .provider
        .command_line(&format!("ping -c 1 -W 1 {address}"));
    ping.stdout(std::process::Stdio::null());
    ping.status().expect("ping").success()
}

/// Returns the draining addresses of the provider's network.
fn draining(testbed: &Testbed) -> Vec<String> {
    let network = testbed.agent.json("network show shop/net");
    let listed = network["status"]["draining_addresses"].as_array().cloned();
    let listed = listed.unwrap_or_default();
    let addresses = listed.iter().filter_map(|entry| entry["address"].as_str());
    addresses.map(str::to_owned).collect()
}

#[test]
fn address_is_answered_for_until_its_last_flow_ends() {
    for (families, old, new) in [
        (Families::V4ToV4, "10.1.0.40", "10.1.0.41"),
        (Families::V6ToV6, "fd00:1::40", "fd00:1::41"),
    ] {
        let mut testbed = families.testbed();
        let endpoint = families.endpoint();
        testbed
            .agent
            .cli(&format!("service update shop/web --nat {old}"));
        echo::serve(&testbed.provider, families.backend());
        let address: IpAddr = old.parse().expect("an address");
        let connect = |testbed: &Testbed| {
            wait::until("a connection", wait::DEFAULT_TIMEOUT, || {
                Session::connect(&testbed.a, endpoint, SECOND).ok()
            })
        };
        let mut session = connect(&testbed);
        assert_eq!(session.seen_as, address);
        testbed
            .agent
            .cli(&format!("service update shop/web --nat {new}"));
        // The server's neighbour entry ages.
        assert!(answers(&testbed, address), "{old} is not answered for");
        session.exchange(2 * SECOND).expect("the open flow goes on");
        wait::until_true("addresses without flows to be released", || {
            draining(&testbed) == [old]
        });
        // No new flow gets the address.
        for _ in 0..5 {
            assert_eq!(connect(&testbed).seen_as.to_string(), new);
        }
        // A new agent finds it.
        testbed.agent.kill();
        testbed.agent.restart();
        assert!(answers(&testbed, address), "{old} after a restart");
        session.exchange(2 * SECOND).expect("the open flow goes on");
        // Collections of flows go by, and find the flow each time.
        let network = testbed.agent.json("network show shop/net");
        assert_eq!(network["status"]["draining_addresses"][0]["address"], old);
        wait::until_true("the flow to be counted", || {
            let network = testbed.agent.json("network show shop/net");
            network["status"]["draining_addresses"][0]["flows"] == 1
        });
        drop(session);
        wait::until_true("the address to be released", || {
            draining(&testbed).is_empty()
        });
        assert!(!answers(&testbed, address), "{old} is still answered for");
    }
}

#[test]
fn draining_address_can_be_given_to_a_server() {
    let families = Families::V4ToV4;
    let testbed = families.testbed();
    let endpoint = families.endpoint();
    testbed.agent.cli("service update shop/web --nat 10.1.0.40");
    echo::serve(&testbed.provider, families.backend());
    let session = wait::until("a connection", wait::DEFAULT_TIMEOUT, || {
        Session::connect(&testbed.a, endpoint, SECOND).ok()
    });
    testbed.agent.cli("service update shop/web --nat 10.1.0.41");
    assert!(draining(&testbed).contains(&"10.1.0.40".to_owned()));
    testbed.agent.cli("service backend add shop/web 10.1.0.40");
    assert!(!draining(&testbed).contains(&"10.1.0.40".to_owned()));
    drop(session);
}
