//! Addresses that the gateway's host has: no tenant takes one, and the host keeps those that it gets.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use tests::net::{
    namespace::Namespace,
    topology::{ENDPOINT, Testbed},
    wait,
};

/// Port of a service of the host's own.
const SSH: u16 = 2_222;

/// Listens at the host on all addresses, until the test process ends.
fn serve(host: &Namespace) {
    let listener = host.run_in(|| TcpListener::bind(("0.0.0.0", SSH)).expect("a listener"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
}

/// Waits until the host's service answers at the address.
#[track_caller]
fn wait_for_host(from: &Namespace, address: IpAddr) {
    from.run_in(move || {
        wait::until_true("the host to answer", || {
            let address = SocketAddr::new(address, SSH);
            TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
        });
    });
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Demands that the agent refuses the command with these words.
#[track_caller]
fn expect_cli_error(site: &Testbed, line: &str, expected: &str) {
    let said = site.agent.cli_error(line);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn endpoint_cannot_use_a_host_address() {
    let mut site = Testbed::with_approved_connections();
    site.host.ip("address add 10.1.0.1/24 dev gw-p");
    site.host.ip("address add 10.0.0.1/24 dev gw-a");
    site.host.ip("address add 192.0.2.1/32 dev lo");
    // The agent knows them from its start. That it hears of others is shown below.
    site.agent.stop();
    site.agent.restart();
    serve(&site.host);
    wait_for_host(&site.provider, address("10.1.0.1"));
    expect_cli_error(
        &site,
        "service update shop/web --nat 10.1.0.0/30",
        "address 10.1.0.1 is the gateway host's own on gw-p: choose another",
    );
    expect_cli_error(
        &site,
        "endpoint create a/own --network net --address 10.0.0.1 --service shop/web",
        "address 10.0.0.1 is the gateway host's own on gw-a: choose another",
    );
    expect_cli_error(
        &site,
        "endpoint create b/own --network net --address 192.0.2.1 --service shop/web",
        "address 192.0.2.1 is the gateway host's own: choose another",
    );
    expect_cli_error(
        &site,
        "service backend add shop/web 10.1.0.1",
        "address 10.1.0.1 is the gateway host's own on gw-p: choose another",
    );
    // Another network may have the same address.
    site.agent
        .cli("endpoint create b/other --network net --address 10.0.0.1 --service shop/web");
    wait_for_host(&site.provider, address("10.1.0.1"));
}

#[test]
fn host_keeps_an_address_assigned_after_the_endpoint() {
    let site = Testbed::with_approved_connections();
    serve(&site.host);
    // A source NAT address, and the consumer's endpoint.
    site.host.ip("address add 10.1.0.70/24 dev gw-p");
    site.agent
        .cli("network update a/net --interface gw-a --isolated false");
    site.host.ip(&format!("address add {ENDPOINT}/24 dev gw-a"));
    wait_for_host(&site.provider, address("10.1.0.70"));
    wait_for_host(&site.a, address(ENDPOINT));
    let service = site.agent.json("service show shop/web");
    assert_eq!(
        service["status"]["problems"][0],
        "address 10.1.0.70 is the gateway host's own on gw-p: choose another"
    );
    let endpoint = site.agent.json("endpoint show a/web");
    let status = &endpoint["status"]["addresses"][0];
    assert_eq!(status["state"], "host");
    let shown = site.agent.cli("endpoint show a/web");
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = format!("address {ENDPOINT} is the gateway host's own on gw-a: choose another");
    assert!(shown.contains(&expected), "{shown}");
    // The other consumer's endpoint of the same address goes on, from the other source NAT addresses.
    let server = tests::services::nginx::Nginx::start(&site.provider, "10.1.0.10");
    let other = tests::services::nginx::Nginx::start(&site.provider, "10.1.0.11");
    tests::net::process::succeed(
        &mut site
            .b
            .command_line(&format!("curl -sSf -m 10 http://{ENDPOINT}/name")),
    );
    drop((server, other));
    // When the host gives them up, they are the tenants' again.
    site.host.ip("address del 10.1.0.70/24 dev gw-p");
    site.host.ip(&format!("address del {ENDPOINT}/24 dev gw-a"));
    wait::until_true("the endpoint's address to be in use", || {
        let endpoint = site.agent.json("endpoint show a/web");
        endpoint["status"]["addresses"][0]["state"] == "in_use"
    });
    let service = site.agent.json("service show shop/web");
    assert!(service["status"]["problems"].is_null(), "{service}");
}
