//! Address conflict detection (RFC 5227, RFC 4862) against other hosts in the consumer's network.

use std::collections::BTreeMap;

use tests::{
    net::{
        families::Families,
        process::{BackgroundProcess, run, succeed},
        topology::Testbed,
        wait,
    },
    services::agent::Agent,
};

/// Returns a testbed of the address families, without an endpoint, whose agent probes addresses before it uses them.
fn testbed(families: Families) -> Testbed {
    let mut testbed = families.testbed();
    testbed.agent.cli("endpoint delete a/web");
    testbed.agent.stop();
    testbed.agent.settings = BTreeMap::from([
        ("PLGW_ADDRESS_PROBES".to_owned(), "3".to_owned()),
        ("PLGW_ADDRESS_PROBE_INTERVAL".to_owned(), "100".to_owned()),
    ]);
    testbed.agent.restart();
    testbed.wait_for_backends();
    testbed
}

/// Creates the endpoint.
fn create(agent: &Agent, families: Families) {
    agent.cli(&format!(
        "endpoint create a/web --network net --address {} --service shop/web",
        families.endpoint()
    ));
}

/// Waits until the endpoint's address is in the state.
#[track_caller]
fn wait_for_state(agent: &Agent, state: &str) {
    wait::until_true(&format!("the address to be {state}"), || {
        let endpoint = agent.json("endpoint show a/web");
        endpoint["status"]["addresses"][0]["state"] == state
    });
}

/// Returns the MAC address of consumer a's interface.
fn client_mac(testbed: &Testbed) -> String {
    let link = testbed.a.ip("-o link show dev eth0");
    let mut fields = link.split_whitespace();
    fields
        .by_ref()
        .find(|word| *word == "link/ether")
        .expect("an Ethernet interface");
    fields.next().expect("an address").to_owned()
}

#[test]
fn address_in_use_by_another_host_is_not_claimed() {
    for families in [Families::V4ToV4, Families::V6ToV6] {
        let testbed = testbed(families);
        let bits = if families == Families::V4ToV4 { 24 } else { 64 };
        let nodad = if bits == 64 { "nodad" } else { "" };
        let address = families.endpoint();
        testbed
            .a
            .ip(&format!("address add {address}/{bits} dev eth0 {nodad}"));
        create(&testbed.agent, families);
        wait_for_state(&testbed.agent, "conflict");
        let shown = testbed.agent.cli("endpoint show a/web");
        assert!(
            shown.contains(&format!("MAC address {} has it", client_mac(&testbed))),
            "{shown}"
        );
        assert!(
            testbed
                .agent
                .log()
                .contains("address in use by another host")
        );
        // The gateway does not answer for the address, because another host has it. It counts the conflicts as drops.
        let drops = testbed.agent.json("status")["drops"].clone();
        assert!(drops["address_conflict"].as_u64() > Some(0), "{drops}");
    }
}

#[test]
fn free_address_is_claimed_after_probing_and_announced() {
    for families in [Families::V4ToV4, Families::V6ToV6] {
        let testbed = testbed(families);
        let filter = if families == Families::V4ToV4 {
            "arp"
        } else {
            "icmp6"
        };
        let capture = tempfile::NamedTempFile::new().expect("a file");
        let mut tcpdump = testbed.a.command_line(&format!(
            "tcpdump -n -l -i eth0 --immediate-mode -Z root {filter}"
        ));
        tcpdump
            .stdout(capture.reopen().expect("a file"))
            .stderr(std::process::Stdio::piped());
        let _tcpdump = BackgroundProcess::start(&mut tcpdump).expect("tcpdump");
        let read = || std::fs::read_to_string(capture.path()).expect("a file");
        // tcpdump is capturing once it shows the packets of another command.
        wait::until_true("tcpdump to show a packet", || {
            let other = if families == Families::V4ToV4 {
                "arping -c 1 -w 1 -I eth0 10.0.0.77"
            } else {
                "ping -6 -c 1 -W 1 fd00::77"
            };
            let _unanswered = run(
                &mut testbed.a.command_line(other),
                std::time::Duration::from_secs(5),
            );
            !read().is_empty()
        });
        create(&testbed.agent, families);
        wait_for_state(&testbed.agent, "in_use");
        let address = families.endpoint();
        wait::until_true("three probes and the announcement", || {
            let text = read();
            let (probe, announcement) = if address.is_ipv4() {
                (
                    format!("who-has {address} tell 0.0.0.0"),
                    format!("who-has {address} tell {address}"),
                )
            } else {
                (
                    format!(
                        ":: > ff02::1:ff00:110: ICMP6, neighbor solicitation, who has {address}"
                    ),
                    format!("{address} > ff02::1: ICMP6, neighbor advertisement, tgt is {address}"),
                )
            };
            text.matches(&probe).count() == 3 && text.contains(&announcement)
        });
        succeed(&mut testbed.a.command_line(&format!("ping -c 1 -W 2 {address}")));
    }
}

#[test]
fn active_address_is_defended_and_the_conflict_is_reported() {
    let families = Families::V4ToV4;
    let testbed = testbed(families);
    create(&testbed.agent, families);
    wait_for_state(&testbed.agent, "in_use");
    let address = families.endpoint();
    testbed.a.ip(&format!("address add {address}/24 dev eth0"));
    succeed(
        &mut testbed
            .a
            .command_line(&format!("arping -c 1 -U -I eth0 {address}")),
    );
    wait_for_state(&testbed.agent, "disputed");
    let shown = testbed.agent.cli("endpoint show a/web");
    assert!(shown.contains("claims it"), "{shown}");
    testbed.a.ip(&format!("address del {address}/24 dev eth0"));
    succeed(&mut testbed.a.command_line(&format!("ping -c 1 -W 2 {address}")));
}

#[test]
fn restarted_agent_does_not_probe_claimed_addresses_again() {
    let families = Families::V4ToV4;
    let mut testbed = testbed(families);
    create(&testbed.agent, families);
    wait_for_state(&testbed.agent, "in_use");
    testbed.agent.kill();
    testbed.agent.restart();
    let endpoint = testbed.agent.json("endpoint show a/web");
    assert_eq!(endpoint["status"]["addresses"][0]["state"], "in_use");
    succeed(
        &mut testbed
            .a
            .command_line(&format!("ping -c 1 -W 2 {}", families.endpoint())),
    );
}

#[test]
fn two_interfaces_in_one_network_are_no_conflict() {
    let families = Families::V4ToV4;
    let testbed = testbed(families);
    // A bridge connects the consumer's host with both interfaces of the gateway.
    testbed.a.ip("link add name br0 type bridge");
    testbed.a.ip("link set dev br0 up");
    testbed.host.connect_as("gw-a2", &testbed.a, "eth1");
    for port in ["eth0", "eth1"] {
        testbed.a.ip(&format!("link set dev {port} master br0"));
    }
    testbed
        .agent
        .cli("network update a/net --interface gw-a --interface gw-a2");
    wait::until_true("both interfaces to be up", || {
        let network = testbed.agent.json("network show a/net");
        let attachments = network["status"]["attachments"].as_array().cloned();
        attachments.is_some_and(|list| list.len() == 2 && list.iter().all(|a| a["state"] == "up"))
    });
    create(&testbed.agent, families);
    wait_for_state(&testbed.agent, "in_use");
    let shown = testbed.agent.cli("endpoint show a/web");
    assert!(!shown.contains("MAC address"), "{shown}");
    // The agent received its own probes through the other interface.
    let drops = testbed.agent.json("status")["drops"].clone();
    assert!(drops["address_conflict"].as_u64() > Some(0), "{drops}");
}
