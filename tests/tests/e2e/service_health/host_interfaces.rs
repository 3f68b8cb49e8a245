//! Interfaces that the gateway's host needs itself.

use std::net::TcpListener;

use tests::net::topology::Testbed;

#[test]
fn an_interface_that_the_host_needs_is_not_attached_by_accident() {
    let testbed = Testbed::unconfigured();
    let (agent, host) = (&testbed.agent, &testbed.host);
    agent.cli("tenant create shop");
    host.ip("address add 10.1.0.1/24 dev gw-p");
    host.ip("route add default via 10.1.0.254");
    // A connected prefix alone, for health checks.
    host.ip("address add 10.0.0.1/24 dev gw-a");
    agent.cli("network create shop/checks --interface gw-a");

    let refusal = agent.cli_error("network create shop/net --interface gw-p");
    for part in [
        "gw-p",
        "its IPv4 default route via 10.1.0.254",
        "--isolated false",
        "--force",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert!(
        agent
            .cli_error("network create shop/net --interface lo")
            .contains("loopback")
    );
    let manifest = tempfile::NamedTempFile::new().expect("a file");
    let text = "networks: [{tenant: shop, name: net, attachments: [{interface: gw-p}]}]";
    std::fs::write(manifest.path(), text).expect("a file");
    let apply = format!("apply -f {}", manifest.path().display());
    assert!(agent.cli_error(&apply).contains("default route"));
    let refusal = agent.cli_error("network update shop/checks --interface gw-a --interface gw-p");
    assert!(refusal.contains("default route"), "{refusal}");

    // Packets for the host pass in a network that is not isolated.
    agent.cli("network create shop/net --interface gw-p --isolated false");
    let refusal = agent.cli_error("network update shop/net --isolated true");
    assert!(refusal.contains("default route"), "{refusal}");
    // Other changes of such a network, and of one that was forced, are nobody's trap.
    agent.cli("network update shop/net --mtu 1400");
    agent.cli("network update shop/net --isolated true --force");
    agent.cli("network update shop/net --mtu 1300");
    agent.cli("network delete shop/net");
    agent.cli(&format!("{apply} --force"));
}

#[test]
fn the_only_address_of_the_host_is_kept_if_a_program_listens_there() {
    let testbed = Testbed::unconfigured();
    let (agent, host) = (&testbed.agent, &testbed.host);
    agent.cli("tenant create shop");
    host.ip("address add 10.1.0.1/24 dev gw-p");
    let listener = host.run_in(|| TcpListener::bind("0.0.0.0:2222"));
    let listener = listener.expect("a listener");
    let create = "network create shop/net --interface gw-p";
    let refusal = agent.cli_error(create);
    assert!(
        refusal.contains("its only address, 10.1.0.1") && refusal.contains("2222"),
        "{refusal}"
    );
    // With a management interface beside it, the address is one for health checks.
    host.ip("address add 192.0.2.1/24 dev gw-b");
    agent.cli(create);
    drop(listener);
}
