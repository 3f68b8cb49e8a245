//! Multicast listener discovery: a bridge that snoops forwards neighbour solicitations to members only.

use std::time::{Duration, Instant};

use tests::net::{
    families::Families, namespace::Namespace, process::succeed, topology::Testbed, wait,
};

/// Time after which the bridge forgets a member that does not answer its queries.
const MEMBERSHIP: Duration = Duration::from_secs(3);

/// Returns a switch with a bridge that snoops and queries, between the gateway's interface `gw-m` and a host's `eth0`.
fn switch_between(testbed: &Testbed, host: &Namespace, version: u8) -> Namespace {
    let switch = Namespace::new("sw");
    // The times are hundredths of a second.
    switch.ip(&format!(
        "link add name br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_query_interval 100 \
         mcast_query_response_interval 50 mcast_startup_query_interval 50 \
         mcast_membership_interval 300 mcast_mld_version {version}"
    ));
    testbed.host.connect_as("gw-m", &switch, "port0");
    host.connect_as("eth0", &switch, "port1");
    for port in ["port0", "port1"] {
        switch.ip(&format!("link set dev {port} master br0"));
    }
    switch.ip("link set dev br0 up");
    switch.enable_ipv6("br0", &[]);
    switch
}

/// Returns the bridge's members of groups.
fn members(switch: &Namespace) -> String {
    succeed(&mut switch.command_line("bridge mdb show dev br0"))
}

#[test]
fn ipv6_endpoint_is_reachable_behind_a_bridge_that_snoops() {
    std::thread::scope(|scope| {
        for version in [1, 2] {
            scope.spawn(move || is_reachable_behind_a_bridge(version));
        }
    });
}

fn is_reachable_behind_a_bridge(version: u8) {
    let testbed = Families::V6ToV6.testbed();
    let host = Namespace::new("c");
    let switch = switch_between(&testbed, &host, version);
    host.enable_ipv6("eth0", &["fd00::5"]);
    testbed.agent.cli("tenant create m");
    testbed.agent.cli("network create m/net --interface gw-m");
    testbed
        .agent
        .cli("endpoint create m/web --network net --address fd00::abcd:110 --service shop/web");
    let group = "ff02::1:ffcd:110";
    let is_member = || {
        let members = members(&switch);
        members
            .lines()
            .any(|line| line.contains("port0") && line.contains(group))
    };
    wait::until_true("the gateway to join the group", is_member);
    // The membership outlives the reports of the join, since queries are answered.
    let start = Instant::now();
    while start.elapsed() < 2 * MEMBERSHIP {
        assert!(
            is_member(),
            "the bridge has forgotten the group: {}",
            members(&switch)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    host.ip("-6 neigh flush dev eth0");
    succeed(&mut host.command_line("ping -6 -c 1 -W 3 fd00::abcd:110"));
    testbed.agent.cli("endpoint delete m/web");
    wait::until_true("the gateway to leave the group", || !is_member());
}
