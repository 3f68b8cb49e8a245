//! Addresses of the host and of routers, and addresses outside of the network's prefixes, are refused.

use std::net::IpAddr;

use serde_json::json;

use super::*;
use crate::model::network::NetworkRequest;

/// Returns a world whose host has addresses in the provider's network, the consumer's network and neither.
fn with_host() -> World {
    let mut world = World::furnished();
    world.host = [
        ("10.1.0.200", "veth-p"),
        ("fd00:1::200", "veth-p"),
        ("10.0.0.200", "veth-c"),
        ("192.0.2.1", "eth0"),
    ]
    .into_iter()
    .map(|(address, name)| (address.parse().unwrap(), name.to_owned()))
    .collect();
    world
}

#[test]
fn source_nat_with_an_address_of_the_host_is_refused() {
    let mut world = with_host();
    for (range, says) in [
        (
            "10.1.0.200",
            "address 10.1.0.200 is the gateway host's own on veth-p: choose another",
        ),
        ("10.1.0.192/28", "10.1.0.200"),
        ("fd00:1::200-fd00:1::20f", "fd00:1::200"),
        (
            "192.0.2.0/30",
            "address 192.0.2.1 is the gateway host's own: choose another",
        ),
    ] {
        let spec = json!({ "nat_addresses": [range, "10.1.0.90", "fd00:1::90"] });
        let outcome = world.service("provider/other", spec);
        refused(outcome, ProblemCode::InUse, Some("nat_addresses[0]"), says);
        let spec = json!({ "nat_addresses": ["10.1.0.64/28", range] });
        let outcome = world.replace_service("provider/shop", spec);
        refused(outcome, ProblemCode::InUse, Some("nat_addresses[1]"), says);
    }
    // The address belongs to the host in the consumer's network only.
    let spec = json!({ "nat_addresses": ["10.0.0.200/30"] });
    world.service("provider/other", spec).unwrap();
}

#[test]
fn endpoints_and_backends_with_an_address_of_the_host_are_refused() {
    let mut world = with_host();
    for address in ["10.0.0.200", "192.0.2.1"] {
        let outcome = world.endpoint("consumer/a", address, "provider/shop");
        let says = format!("address {address} is the gateway host's own");
        refused(outcome, ProblemCode::InUse, Some("addresses[0]"), &says);
    }
    world
        .endpoint("consumer/a", "10.1.0.200", "provider/shop")
        .unwrap();
    let spec = json!({ "resources": [{
        "ports": [{ "port": 443 }],
        "backends": [{ "address": "10.1.0.200" }],
    }] });
    let outcome = world.replace_service("provider/shop", spec);
    let field = Some("resources[0].backends[0].address");
    refused(
        outcome,
        ProblemCode::InUse,
        field,
        "10.1.0.200 is the gateway host's own on veth-p",
    );
}

#[test]
fn a_pool_allocates_no_address_of_the_host() {
    let mut world = with_host();
    let pool = json!({ "pool": ["10.0.0.200-10.0.0.201"] });
    world
        .update_network("consumer/net", "veth-c", pool)
        .unwrap();
    let spec = json!({ "addresses": [], "service": "provider/shop" });
    world.endpoint_with("consumer/a", spec.clone()).unwrap();
    let endpoint = &world.state.endpoints[&reference("consumer/a")].object;
    assert_eq!(
        endpoint.addresses,
        ["10.0.0.201".parse::<IpAddr>().unwrap()]
    );
    let outcome = world.endpoint_with("consumer/b", spec);
    refused(
        outcome,
        ProblemCode::LimitReached,
        Some("addresses"),
        "no free IPv4 address",
    );
}

#[test]
fn a_later_host_address_does_not_block_other_changes() {
    let mut world = with_host();
    world.host = [("10.1.0.64".parse().unwrap(), "veth-p".to_owned())]
        .into_iter()
        .collect();
    let spec = json!({ "visibility": [] });
    world.replace_service("provider/shop", spec).unwrap();
    world
        .update_network("provider/net", "veth-p", json!({ "mtu": 1_400 }))
        .unwrap();
}

#[test]
fn a_network_does_not_move_to_an_interface_whose_host_address_is_in_use() {
    let mut world = with_host();
    world
        .endpoint("consumer/a", "10.0.0.101", "provider/shop")
        .unwrap();
    world.host = [("10.0.0.101", "veth-x"), ("10.1.0.64", "veth-y")]
        .into_iter()
        .map(|(address, name)| (address.parse().unwrap(), name.to_owned()))
        .collect();
    for (network, interface, says) in [
        (
            "consumer/net",
            "veth-x",
            "endpoint consumer/a could not stay: address 10.0.0.101 is the gateway host's own on veth-x",
        ),
        (
            "provider/net",
            "veth-y",
            "source NAT of service provider/shop could not stay: address 10.1.0.64",
        ),
    ] {
        let outcome = world.update_network(network, interface, json!({}));
        refused(
            outcome,
            ProblemCode::HasDependents,
            Some("attachments"),
            says,
        );
    }
}

#[test]
fn source_nat_outside_the_networks_prefixes_is_refused() {
    let mut world = World::furnished();
    let prefixes = |list: &[&str]| json!({ "prefixes": list });
    let outcome = world.update_network("provider/net", "veth-p", prefixes(&["10.9.0.0/24"]));
    let says =
        "source NAT of service provider/shop could not stay: 10.1.0.64/28 is not wholly within";
    refused(outcome, ProblemCode::HasDependents, Some("prefixes"), says);
    let routers = json!({ "routers": ["10.1.0.65"] });
    let outcome = world.update_network("provider/net", "veth-p", routers);
    let says = "source NAT of service provider/shop could not stay: 10.1.0.64/28 holds 10.1.0.65, a router";
    refused(outcome, ProblemCode::HasDependents, Some("prefixes"), says);
    let routers = json!({ "routers": ["10.1.0.10"] });
    let outcome = world.update_network("provider/net", "veth-p", routers);
    let says = "a backend of service provider/shop could not stay: 10.1.0.10 is a router";
    refused(outcome, ProblemCode::HasDependents, Some("prefixes"), says);

    let inside = prefixes(&["10.1.0.0/24", "fd00:1::/64"]);
    world
        .update_network("provider/net", "veth-p", inside)
        .unwrap();
    for (range, says) in [
        (
            "10.2.0.0/30",
            "10.2.0.0/30 is not wholly within one of the network's prefixes",
        ),
        ("10.1.0.254-10.1.1.1", "is not wholly within"),
        ("fd00:2::/124", "is not wholly within"),
    ] {
        let spec = json!({ "nat_addresses": ["10.1.0.90", range] });
        let outcome = world.service("provider/other", spec);
        refused(
            outcome,
            ProblemCode::Invalid,
            Some("nat_addresses[1]"),
            says,
        );
    }
    let spec = json!({ "nat_addresses": ["10.1.0.252/30"] });
    let outcome = world.service("provider/other", spec);
    refused(
        outcome,
        ProblemCode::InUse,
        Some("nat_addresses[0]"),
        "broadcast address",
    );
}

/// Creates or changes the network `provider/new` with these fields.
fn attach(world: &mut World, fields: serde_json::Value) -> world::Outcome {
    let mut value = json!({ "attachments": [{ "interface": "eth0" }] });
    let map = value.as_object_mut().unwrap();
    map.extend(fields.as_object().unwrap().clone());
    let at = reference("provider/new");
    if world.state.networks.contains_key(&at) {
        let request: NetworkRequest = body(value)?;
        world.run(|state, context, _| update_network(state, context, &at, request))
    } else {
        value["name"] = json!("new");
        let request: NetworkRequest = body(value)?;
        world.run(|state, context, policy| {
            create_network(state, context, policy, &at.tenant, request)
        })
    }
}

#[test]
fn an_isolated_network_does_not_take_an_interface_that_the_host_uses() {
    let mut world = World::furnished();
    let uses = vec!["its default route".to_owned(), "its address".to_owned()];
    world.host_uses = [("eth0".to_owned(), uses)].into_iter().collect();
    let field = Some("attachments[0].interface");
    for (isolated, words) in [
        (json!(null), "as this one is while it has no service"),
        (json!(true), "an isolated network passes the host nothing"),
    ] {
        let outcome = attach(&mut world, json!({ "isolated": isolated }));
        refused(outcome.clone(), ProblemCode::InUse, field, words);
        let words = "would lose its default route and its address, which eth0 carries";
        refused(outcome, ProblemCode::InUse, field, words);
    }
    attach(&mut world, json!({ "isolated": false })).unwrap();
    // The last service may go, and with it the reason why the network is not isolated.
    for isolated in [json!(null), json!(true)] {
        let outcome = attach(&mut world, json!({ "isolated": isolated }));
        refused(outcome, ProblemCode::InUse, field, "--isolated false");
    }
    attach(&mut world, json!({ "isolated": false, "mtu": 1400 })).unwrap();
    attach(&mut world, json!({ "isolated": true, "force": true })).unwrap();
    // What was forced is not refused again.
    attach(&mut world, json!({ "isolated": null, "mtu": 1300 })).unwrap();
    let two = json!([{ "interface": "eth1" }, { "interface": "eth0" }]);
    let with_free = json!({ "attachments": [{ "interface": "eth1" }], "isolated": true });
    attach(&mut world, with_free).unwrap();
    let outcome = attach(&mut world, json!({ "attachments": two, "isolated": true }));
    refused(
        outcome,
        ProblemCode::InUse,
        Some("attachments[1].interface"),
        "which eth0 carries",
    );
    let lo = json!([{ "interface": "lo" }]);
    let outcome = attach(&mut world, json!({ "attachments": lo, "isolated": false }));
    refused(outcome, ProblemCode::InUse, field, "loopback");
}
