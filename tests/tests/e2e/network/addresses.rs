//! Source addresses and next hops: SNAT, clients behind a router, and hairpinning.

use std::{fs, net::SocketAddr};

use tests::{
    net::{
        namespace::Namespace,
        process::succeed,
        topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
        wait,
    },
    services::nginx::Nginx,
};

use crate::{capture::Capture, curl, is_snat_address, random_bytes};

#[test]
fn provider_sees_only_snat_addresses_and_valid_checksums() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let mut capture = Capture::start(&testbed.provider, "eth0", "tcp");
    for namespace in [&testbed.a, &testbed.b] {
        for _ in 0..20 {
            succeed(&mut curl(namespace, &format!("http://{ENDPOINT}/name")));
        }
    }
    let text = capture.text();
    let sources: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().split_once(" > "))
        .filter_map(|(source, _)| source.rsplit_once('.').map(|(address, _)| address))
        .filter(|address| address.starts_with("10."))
        .collect();
    assert!(sources.len() > 100, "{text}");
    assert!(
        sources.iter().all(|source| is_snat_address(source)),
        "the provider saw addresses other than SNAT addresses: {sources:?}"
    );
    for bad in ["incorrect", "bad cksum", "bad length", "bad hdr"] {
        assert!(!text.contains(bad), "the capture has {bad:?}:\n{text}");
    }
}

#[test]
fn replies_to_a_routed_client_use_its_router() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let client = Namespace::new("far");
    testbed.a.connect_as("lan", &client, "eth0");
    testbed.a.ip("address add 192.168.7.1/24 dev lan");
    client.ip("address add 192.168.7.7/24 dev eth0");
    client.ip("route add default via 192.168.7.1");
    testbed
        .a
        .run_in(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("a router");
    let name = succeed(&mut curl(&client, &format!("http://{ENDPOINT}/name")));
    assert!(BACKENDS.contains(&name.trim()), "{name}");
    let flows = testbed.agent.json("flow list");
    let client: SocketAddr = flows[0]["client"]
        .as_str()
        .expect("a client")
        .parse()
        .expect("an address");
    assert_eq!(client.ip().to_string(), "192.168.7.7");
}

#[test]
fn service_in_the_consumers_own_network_is_reachable() {
    // Hairpinning (RFC 4787, REQ-9): client and server are in one network and communicate through the endpoint.
    let testbed = Testbed::unconfigured();
    testbed.agent.cli("tenant create a");
    testbed.agent.cli("network create a/net --interface gw-a");
    testbed.a.ip("address add 10.0.0.20/24 dev eth0");
    testbed.agent.cli(
        "service create a/own --network net --port 80 --backend 10.0.0.20 --nat 10.0.0.64/28 \
         --auto-approval a",
    );
    testbed
        .agent
        .cli("endpoint create a/own --network net --address 10.0.0.100 --service a/own");
    wait::until_true("the backend to be reachable", || {
        let service = testbed.agent.json("service show a/own");
        service["status"]["backends"][0]["reachable"] == true
    });
    let server = Nginx::start(&testbed.a, "10.0.0.20");
    fs::write(server.root().join("large"), random_bytes(5_000_000)).expect("a file");
    let length = succeed(&mut curl(
        &testbed.a,
        "-o /dev/null -w %{size_download} http://10.0.0.100/large",
    ));
    assert_eq!(length, "5000000");
    let clients = server.client_addresses();
    assert!(
        clients.iter().all(|client| client.starts_with("10.0.0.")
            && client != CLIENT
            && client != "10.0.0.20"),
        "the server saw addresses other than SNAT addresses: {clients:?}"
    );
}
