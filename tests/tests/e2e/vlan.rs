//! Frames of a VLAN whose tag is beside the packet, where a program in the driver does not see it.

use tests::{
    net::{
        namespace::Namespace,
        process::{run, succeed},
        topology::{ENDPOINT, Testbed},
        vlan_tagger, wait,
    },
    services::agent::Agent,
};

/// Demands that the endpoint answers the station's ARP request, or that it does not.
#[track_caller]
fn expect_arp_answer(client: &Namespace, interface: &str, expected: bool) {
    let mut arping = client.command_line(&format!("arping -c 1 -w 2 -I {interface} {ENDPOINT}"));
    let output = run(&mut arping, wait::DEFAULT_TIMEOUT * wait::timeout_factor()).expect("arping");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.success(), expected, "{text}");
}

/// Offloads of VLAN tags that are on.
fn offloads(namespace: &Namespace, interface: &str) -> Vec<String> {
    let text = succeed(&mut namespace.command_line(&format!("ethtool -k {interface}")));
    let on = text
        .lines()
        .filter(|line| line.contains("vlan") && line.contains(": on"));
    on.filter_map(|line| line.split(':').next())
        .map(|name| name.trim().to_owned())
        .collect()
}

fn vlan_tagged_drops(agent: &Agent) -> u64 {
    agent.drop_count("vlan_tagged")
}

#[test]
fn bridged_attachment_receives_no_offloaded_vlan_tag() {
    let site = Testbed::with_approved_connections();
    // Station, bridge and attachment: both ends of the attachment's veth are the host's.
    let client = Namespace::new("s");
    site.host.connect("port", &client);
    client.ip("address add 10.0.0.5/24 dev eth0");
    site.host.ip("link add name gw-v type veth peer name far");
    site.host.ip("link add name br0 type bridge");
    for interface in ["gw-v", "far", "br0"] {
        site.host.ip(&format!("link set dev {interface} up"));
    }
    // The far end takes what is redirected.
    succeed(&mut site.host.command_line("ethtool -K far gro on"));
    for port in ["far", "port"] {
        site.host.ip(&format!("link set dev {port} master br0"));
    }
    site.agent.cli("tenant create v");
    site.agent.cli("network create v/net --interface gw-v");
    site.agent.cli(&format!(
        "endpoint create v/web --network net --address {ENDPOINT} --service shop/web"
    ));
    wait::until_true("the attachment", || {
        let network = site.agent.json("network show v/net");
        network["status"]["attachments"][0]["xdp_mode"] == "native"
    });
    assert_eq!(
        offloads(&site.host, "gw-v"),
        ["tx-vlan-offload", "tx-vlan-stag-hw-insert"]
    );
    assert_eq!(
        offloads(&site.host, "far"),
        ["rx-vlan-offload", "rx-vlan-stag-hw-parse"]
    );
    expect_arp_answer(&client, "eth0", true);

    vlan_tagger::push_vlan_tags(&site.host, "far", 100).expect("a tagged port");
    let before = vlan_tagged_drops(&site.agent);
    expect_arp_answer(&client, "eth0", false);
    assert!(vlan_tagged_drops(&site.agent) > before);

    // Nobody switches it on again unnoticed.
    succeed(&mut site.host.command_line("ethtool -K far txvlan on"));
    wait::until_true("the far end's offload to be off", || {
        !offloads(&site.host, "far").contains(&"tx-vlan-offload".to_owned())
    });
    let before = vlan_tagged_drops(&site.agent);
    expect_arp_answer(&client, "eth0", false);
    assert!(vlan_tagged_drops(&site.agent) > before);
}

#[test]
fn vlan_tag_offload_that_the_agent_cannot_disable_is_reported() {
    let site = Testbed::with_approved_connections();
    let network = site.agent.json("network show a/net");
    let note = network["status"]["attachments"][0]["notes"][0].as_str();
    let note = note.expect("a note");
    let remedy = "ethtool -K FAR_END txvlan off tx-vlan-stag-hw-insert off";
    assert!(note.contains("gw-a") && note.contains(remedy), "{note}");
    assert!(site.agent.cli("network show a/net").contains("NOTES"));
    vlan_tagger::push_vlan_tags(&site.a, "eth0", 100).expect("a tagged port");
    // That the tag is beside the packet, and what comes of it.
    expect_arp_answer(&site.a, "eth0", true);
    succeed(
        &mut site
            .a
            .command_line("ethtool -K eth0 txvlan off tx-vlan-stag-hw-insert off"),
    );
    let before = vlan_tagged_drops(&site.agent);
    expect_arp_answer(&site.a, "eth0", false);
    assert!(vlan_tagged_drops(&site.agent) > before);
}
