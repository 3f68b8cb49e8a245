//! Addresses that somebody else has, or wants.

use std::collections::BTreeMap;

use tests::{
    net::{families::Families, process::succeed, topology::Testbed, wait},
    services::agent::Agent,
};

/// A site of the family whose agent probes addresses before it takes them.
fn testbed(families: Families) -> Testbed {
    let mut site = families.testbed();
    site.agent.cli("endpoint delete a/web");
    site.agent.stop();
    site.agent.settings = BTreeMap::from([
        ("PLGW_ADDRESS_PROBES".to_owned(), "3".to_owned()),
        ("PLGW_ADDRESS_PROBE_INTERVAL".to_owned(), "100".to_owned()),
    ]);
    site.agent.restart();
    site.wait_for_backends();
    site
}

fn create(agent: &Agent, families: Families) {
    agent.cli(&format!(
        "endpoint create a/web --network net --address {} --service shop/web",
        families.endpoint()
    ));
}

#[track_caller]
fn wait_for_state(agent: &Agent, state: &str) {
    wait::until_true(&format!("the address to be {state}"), || {
        let endpoint = agent.json("endpoint show a/web");
        endpoint["status"]["addresses"][0]["state"] == state
    });
}

/// The hardware address of the consumer's station.
fn client_mac(site: &Testbed) -> String {
    let link = site.a.ip("-o link show dev eth0");
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
        let site = testbed(families);
        let bits = if families == Families::V4ToV4 { 24 } else { 64 };
        let nodad = if bits == 64 { "nodad" } else { "" };
        let address = families.endpoint();
        site.a
            .ip(&format!("address add {address}/{bits} dev eth0 {nodad}"));
        create(&site.agent, families);
        wait_for_state(&site.agent, "conflict");
        let shown = site.agent.cli("endpoint show a/web");
        assert!(
            shown.contains(&format!("MAC address {} has it", client_mac(&site))),
            "{shown}"
        );
        assert!(site.agent.log().contains("address in use by another host"));
        // Nothing that is sent to it is answered by the gateway: the address is the other station's.
        let drops = site.agent.json("status")["drops"].clone();
        assert!(drops["address_conflict"].as_u64() > Some(0), "{drops}");
    }
}

#[test]
fn free_address_is_claimed_after_probing_and_announced() {
    for families in [Families::V4ToV4, Families::V6ToV6] {
        let site = testbed(families);
        let sniffer = if families == Families::V4ToV4 {
            "arp"
        } else {
            "icmp6"
        };
        let capture = tempfile::NamedTempFile::new().expect("a file");
        let mut tcpdump = site.a.command_line(&format!(
            "tcpdump -n -l -i eth0 --immediate-mode -Z root {sniffer}"
        ));
        tcpdump
            .stdout(capture.reopen().expect("a file"))
            .stderr(std::process::Stdio::piped());
        let _tcpdump =
            tests::net::process::BackgroundProcess::start(&mut tcpdump).expect("tcpdump");
        let read = || std::fs::read_to_string(capture.path()).expect("a file");
        // It records from the moment on that it shows what is sent.
        wait::until_true("tcpdump", || {
            let other = if families == Families::V4ToV4 {
                "arping -c 1 -w 1 -I eth0 10.0.0.77"
            } else {
                "ping -6 -c 1 -W 1 fd00::77"
            };
            let _unanswered = tests::net::process::run(
                &mut site.a.command_line(other),
                std::time::Duration::from_secs(5),
            );
            !read().is_empty()
        });
        create(&site.agent, families);
        wait_for_state(&site.agent, "in_use");
        let address = families.endpoint();
        wait::until_true("the announcement", || {
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
        succeed(&mut site.a.command_line(&format!("ping -c 1 -W 2 {address}")));
    }
}

#[test]
fn active_address_is_defended_and_the_conflict_is_reported() {
    let families = Families::V4ToV4;
    let site = testbed(families);
    create(&site.agent, families);
    wait_for_state(&site.agent, "in_use");
    let address = families.endpoint();
    site.a.ip(&format!("address add {address}/24 dev eth0"));
    succeed(
        &mut site
            .a
            .command_line(&format!("arping -c 1 -U -I eth0 {address}")),
    );
    wait_for_state(&site.agent, "disputed");
    let shown = site.agent.cli("endpoint show a/web");
    assert!(shown.contains("claims it"), "{shown}");
    site.a.ip(&format!("address del {address}/24 dev eth0"));
    succeed(&mut site.a.command_line(&format!("ping -c 1 -W 2 {address}")));
}

#[test]
fn restarted_agent_does_not_probe_claimed_addresses_again() {
    let families = Families::V4ToV4;
    let mut site = testbed(families);
    create(&site.agent, families);
    wait_for_state(&site.agent, "in_use");
    site.agent.kill();
    site.agent.restart();
    let endpoint = site.agent.json("endpoint show a/web");
    assert_eq!(endpoint["status"]["addresses"][0]["state"], "in_use");
    succeed(
        &mut site
            .a
            .command_line(&format!("ping -c 1 -W 2 {}", families.endpoint())),
    );
}

#[test]
fn two_interfaces_in_one_network_are_no_conflict() {
    let families = Families::V4ToV4;
    let site = testbed(families);
    // A switch, with the consumer's station and both interfaces of the gateway at it.
    site.a.ip("link add name br0 type bridge");
    site.a.ip("link set dev br0 up");
    site.host.connect_as("gw-a2", &site.a, "eth1");
    for port in ["eth0", "eth1"] {
        site.a.ip(&format!("link set dev {port} master br0"));
    }
    site.agent
        .cli("network update a/net --interface gw-a --interface gw-a2");
    wait::until_true("both interfaces", || {
        let network = site.agent.json("network show a/net");
        let attachments = network["status"]["attachments"].as_array().cloned();
        attachments.is_some_and(|list| list.len() == 2 && list.iter().all(|a| a["state"] == "up"))
    });
    create(&site.agent, families);
    wait_for_state(&site.agent, "in_use");
    let shown = site.agent.cli("endpoint show a/web");
    assert!(!shown.contains("MAC address"), "{shown}");
    // The probes did come round.
    let drops = site.agent.json("status")["drops"].clone();
    assert!(drops["address_conflict"].as_u64() > Some(0), "{drops}");
}
