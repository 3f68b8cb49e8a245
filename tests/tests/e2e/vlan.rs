//! VLAN-tagged frames with tag offload: the tag is in the packet's metadata, where an XDP program does not see it.

use tests::{
    net::{
        namespace::Namespace,
        process::{run, succeed},
        topology::{ENDPOINT, Testbed},
        vlan_tagger, wait,
    },
    services::agent::Agent,
};

/// Asserts that the endpoint answers an ARP request of the client (`expected`), or that it does not.
#[track_caller]
fn expect_arp_answer(client: &Namespace, interface: &str, expected: bool) {
    let mut arping = client.command_line(&format!("arping -c 1 -w 2 -I {interface} {ENDPOINT}"));
    let output = run(&mut arping, wait::DEFAULT_TIMEOUT * wait::timeout_factor()).expect("arping");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.success(), expected, "{text}");
}

/// Returns the names of the VLAN offloads that are on.
fn offloads(namespace: &Namespace, interface: &str) -> Vec<String> {
    let text = succeed(&mut namespace.command_line(&format!("ethtool -k {interface}")));
    let on = text
        .lines()
        .filter(|line| line.contains("vlan") && line.contains(": on"));
    on.filter_map(|line| line.split(':').next())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Returns the number of frames that were dropped because of a VLAN tag.
fn vlan_tagged_drops(agent: &Agent) -> u64 {
    agent.drop_count("vlan_tagged")
}

#[test]
fn bridged_attachment_receives_no_offloaded_vlan_tag() {
    let testbed = Testbed::with_approved_connections();
    // The client is connected to a bridge, and the bridge to the attachment. Both ends of the attachment's veth are in
    // the host's namespace.
    let client = Namespace::new("s");
    testbed.host.connect("port", &client);
    client.ip("address add 10.0.0.5/24 dev eth0");
    testbed
        .host
        .ip("link add name gw-v type veth peer name far");
    testbed.host.ip("link add name br0 type bridge");
    for interface in ["gw-v", "far", "br0"] {
        testbed.host.ip(&format!("link set dev {interface} up"));
    }
    // With GRO the far end accepts redirected frames.
    succeed(&mut testbed.host.command_line("ethtool -K far gro on"));
    for port in ["far", "port"] {
        testbed.host.ip(&format!("link set dev {port} master br0"));
    }
    testbed.agent.cli("tenant create v");
    testbed.agent.cli("network create v/net --interface gw-v");
    testbed.agent.cli(&format!(
        "endpoint create v/web --network net --address {ENDPOINT} --service shop/web"
    ));
    wait::until_true("the attachment to have native XDP", || {
        let network = testbed.agent.json("network show v/net");
        network["status"]["attachments"][0]["xdp_mode"] == "native"
    });
    assert_eq!(
        offloads(&testbed.host, "gw-v"),
        ["tx-vlan-offload", "tx-vlan-stag-hw-insert"]
    );
    assert_eq!(
        offloads(&testbed.host, "far"),
        ["rx-vlan-offload", "rx-vlan-stag-hw-parse"]
    );
    expect_arp_answer(&client, "eth0", true);

    vlan_tagger::push_vlan_tags(&testbed.host, "far", 100)
        .expect("a program that pushes VLAN tags");
    let before = vlan_tagged_drops(&testbed.agent);
    expect_arp_answer(&client, "eth0", false);
    assert!(vlan_tagged_drops(&testbed.agent) > before);

    // The agent disables the offload again when another program enables it.
    succeed(&mut testbed.host.command_line("ethtool -K far txvlan on"));
    wait::until_true("the far end's offload to be off", || {
        !offloads(&testbed.host, "far").contains(&"tx-vlan-offload".to_owned())
    });
    let before = vlan_tagged_drops(&testbed.agent);
    expect_arp_answer(&client, "eth0", false);
    assert!(vlan_tagged_drops(&testbed.agent) > before);
}

#[test]
fn vlan_tag_offload_that_the_agent_cannot_disable_is_reported() {
    let testbed = Testbed::with_approved_connections();
    let network = testbed.agent.json("network show a/net");
    let note = network["status"]["attachments"][0]["notes"][0].as_str();
    let note = note.expect("a note");
    let remedy = "ethtool -K FAR_END txvlan off tx-vlan-stag-hw-insert off";
    assert!(note.contains("gw-a") && note.contains(remedy), "{note}");
    assert!(testbed.agent.cli("network show a/net").contains("NOTES"));
    vlan_tagger::push_vlan_tags(&testbed.a, "eth0", 100).expect("a program that pushes VLAN tags");
    // The tag is in the metadata, so the request looks untagged and is answered.
    expect_arp_answer(&testbed.a, "eth0", true);
    succeed(
        &mut testbed
            .a
            .command_line("ethtool -K eth0 txvlan off tx-vlan-stag-hw-insert off"),
    );
    let before = vlan_tagged_drops(&testbed.agent);
    expect_arp_answer(&testbed.a, "eth0", false);
    assert!(vlan_tagged_drops(&testbed.agent) > before);
}
