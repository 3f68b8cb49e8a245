//! Addresses of endpoints: allocation from a network's pool, and addresses that no host can have.

use serde_json::json;

use super::*;

#[test]
fn an_endpoint_without_an_address_gets_a_free_one_of_each_family_of_the_pool() {
    let mut world = World::furnished();
    let without = json!({ "service": "provider/shop" });
    let refusal = world
        .endpoint_with("consumer/x", without.clone())
        .unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("addresses"));
    assert!(refusal.detail.contains("has no address pool"), "{refusal}");
    update_consumer_network(
        &mut world,
        json!({
            "prefixes": ["10.0.0.0/24", "fd00::/64"],
            "routers": ["10.0.0.251"],
            // The network address, a router and the broadcast address are skipped.
            "pool": ["10.0.0.0-10.0.0.1", "10.0.0.250-10.0.0.255", "fd00::10-fd00::20"],
        }),
    )
    .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..5 {
        let at = format!("consumer/x{number}");
        world.endpoint_with(&at, without.clone()).unwrap();
        let endpoint = &world.state.endpoints[&reference(&at)].object;
        assert_eq!(endpoint.addresses.len(), 2);
        assert!(endpoint.addresses[0].is_ipv4() && endpoint.addresses[1].is_ipv6());
        seen.extend(endpoint.addresses.clone());
    }
    let v4: Vec<String> = seen
        .iter()
        .filter(|address| address.is_ipv4())
        .map(ToString::to_string)
        .collect();
    let expected = [
        "10.0.0.1",
        "10.0.0.250",
        "10.0.0.252",
        "10.0.0.253",
        "10.0.0.254",
    ];
    assert_eq!(v4, expected);
}

#[test]
fn an_exhausted_pool_is_reported_and_a_released_address_is_reused() {
    let mut world = World::furnished();
    update_consumer_network(&mut world, json!({ "pool": ["10.0.0.8/30"] })).unwrap();
    let without = json!({ "service": "provider/shop" });
    let mut had = Vec::new();
    for number in 0..4 {
        let at = format!("consumer/x{number}");
        world.endpoint_with(&at, without.clone()).unwrap();
        had.push(
            world.state.endpoints[&reference(&at)]
                .object
                .addresses
                .clone(),
        );
    }
    let refusal = world
        .endpoint_with("consumer/y", without.clone())
        .unwrap_err();
    assert_eq!(refusal.code, ProblemCode::LimitReached);
    assert!(refusal.detail.contains("no free IPv4 address"), "{refusal}");
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/x2")))
        .unwrap();
    world.endpoint_with("consumer/y", without).unwrap();
    assert_eq!(
        world.state.endpoints[&reference("consumer/y")]
            .object
            .addresses,
        had[2]
    );
}

#[test]
fn addresses_that_no_host_of_the_network_can_have_are_refused() {
    let mut world = World::furnished();
    let fields = json!({ "prefixes": ["10.0.0.0/24"], "routers": ["10.0.0.1"] });
    update_consumer_network(&mut world, fields).unwrap();
    for (address, says) in [
        ("10.0.0.1", "is a router of the network"),
        ("10.0.0.0", "the address of the network itself"),
        ("10.0.0.255", "the broadcast address"),
        ("10.0.1.5", "in none of the network's prefixes"),
        ("224.0.0.5", "a multicast address"),
    ] {
        let refusal = world
            .endpoint("consumer/x", address, "provider/shop")
            .unwrap_err();
        assert!(refusal.detail.contains(says), "{address}: {refusal}");
        assert_eq!(refusal.field.as_deref(), Some("addresses[0]"));
    }
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    for (fields, says) in [
        (
            json!({ "prefixes": ["10.9.0.0/24"] }),
            "endpoint consumer/x could not stay",
        ),
        (
            json!({ "routers": ["10.0.0.9"] }),
            "is a router of the network",
        ),
        (json!({ "prefixes": ["10.0.0.1/24"] }), "10.0.0.0/24"),
        (json!({ "routers": ["224.0.0.1"] }), "multicast"),
        (
            json!({ "prefixes": ["10.0.0.0/24"], "pool": ["10.0.1.0/30"] }),
            "in none",
        ),
    ] {
        let refusal = update_consumer_network(&mut world, fields.clone()).unwrap_err();
        assert!(refusal.detail.contains(says), "{fields}: {refusal}");
    }
}
