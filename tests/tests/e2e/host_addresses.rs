//! Addresses of the gateway's host: tenants can't use them, and the host keeps one that it gets later.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use tests::{
    net::{
        namespace::Namespace,
        process::succeed,
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::nginx::Nginx,
};

/// Port of a service that runs on the host.
const SSH: u16 = 2_222;

/// Starts a server on all addresses of the host. It runs until the test process exits.
fn serve(host: &Namespace) {
    let listener = host.run_in(|| TcpListener::bind(("0.0.0.0", SSH)).expect("a listener"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
}

/// Waits until the host's service accepts connections at the address.
#[track_caller]
fn wait_for_host(from: &Namespace, address: IpAddr) {
    from.run_in(move || {
        wait::until_true("the host to accept a connection", || {
            let address = SocketAddr::new(address, SSH);
            TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
        });
    });
}

/// Parses an address.
fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Asserts that the command line fails with a message that contains `expected`. Line breaks count as blanks.
#[track_caller]
fn expect_cli_error(testbed: &Testbed, line: &str, expected: &str) {
    let error = testbed.agent.cli_error(line);
    let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(error.contains(expected), "{expected:?} is not in: {error}");
}

#[test]
fn endpoint_cannot_use_a_host_address() {
    let mut testbed = Testbed::with_approved_connections();
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    testbed.host.ip("address add 10.0.0.1/24 dev gw-a");
    testbed.host.ip("address add 192.0.2.1/32 dev lo");
    // A restarted agent reads all addresses at its start. Addresses that are assigned while it runs are in the next
    // test.
    testbed.agent.stop();
    testbed.agent.restart();
    serve(&testbed.host);
    wait_for_host(&testbed.provider, address("10.1.0.1"));
    expect_cli_error(
        &testbed,
        "service update shop/web --nat 10.1.0.0/30",
        "address 10.1.0.1 is the gateway host's own on gw-p: choose another",
    );
    expect_cli_error(
        &testbed,
        "endpoint create a/own --network net --address 10.0.0.1 --service shop/web",
        "address 10.0.0.1 is the gateway host's own on gw-a: choose another",
    );
    expect_cli_error(
        &testbed,
        "endpoint create b/own --network net --address 192.0.2.1 --service shop/web",
        "address 192.0.2.1 is the gateway host's own: choose another",
    );
    expect_cli_error(
        &testbed,
        "service backend add shop/web 10.1.0.1",
        "address 10.1.0.1 is the gateway host's own on gw-p: choose another",
    );
    // An endpoint in another network may have the same address.
    testbed
        .agent
        .cli("endpoint create b/other --network net --address 10.0.0.1 --service shop/web");
    wait_for_host(&testbed.provider, address("10.1.0.1"));
}

#[test]
fn host_keeps_an_address_assigned_after_the_endpoint() {
    let testbed = Testbed::with_approved_connections();
    serve(&testbed.host);
    // The host gets a SNAT address of the service and the address of consumer a's endpoint.
    testbed.host.ip("address add 10.1.0.70/24 dev gw-p");
    testbed
        .agent
        .cli("network update a/net --interface gw-a --isolated false");
    testbed
        .host
        .ip(&format!("address add {ENDPOINT}/24 dev gw-a"));
    wait_for_host(&testbed.provider, address("10.1.0.70"));
    wait_for_host(&testbed.a, address(ENDPOINT));
    let service = testbed.agent.json("service show shop/web");
    assert_eq!(
        service["status"]["problems"][0],
        "address 10.1.0.70 is the gateway host's own on gw-p: choose another"
    );
    let endpoint = testbed.agent.json("endpoint show a/web");
    let status = &endpoint["status"]["addresses"][0];
    assert_eq!(status["state"], "host");
    let shown = testbed.agent.cli("endpoint show a/web");
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = format!("address {ENDPOINT} is the gateway host's own on gw-a: choose another");
    assert!(shown.contains(&expected), "{shown}");
    // Consumer b's endpoint has the same address and still works, with the remaining SNAT addresses.
    let servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    succeed(
        &mut testbed
            .b
            .command_line(&format!("curl -sSf -m 10 http://{ENDPOINT}/name")),
    );
    drop(servers);
    // Addresses that the host removes are available to the tenants again.
    testbed.host.ip("address del 10.1.0.70/24 dev gw-p");
    testbed
        .host
        .ip(&format!("address del {ENDPOINT}/24 dev gw-a"));
    wait::until_true("the endpoint's address to be in use", || {
        let endpoint = testbed.agent.json("endpoint show a/web");
        endpoint["status"]["addresses"][0]["state"] == "in_use"
    });
    let service = testbed.agent.json("service show shop/web");
    let problems = service["status"]["problems"].to_string();
    assert!(!problems.contains("gateway host's own"), "{service}");
}
