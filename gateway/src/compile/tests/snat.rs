//! SNAT addresses: tentative ones are not used, and those that leave their service drain.

use std::net::IpAddr;

use gateway_common::{
    IpAddress,
    maps::{AddressKey, LocalAddress},
};
use serde_json::json;

use super::both_interfaces;
use crate::{
    compile::{
        compile_cache::Delta, draining::Draining, map_snapshot::MapSnapshot, observed::Observed,
        recompile::compile,
    },
    model::{HostAddresses, Reference, State, operations::tests::World},
};

/// Returns a world whose service has these SNAT addresses.
fn world(nat: &str) -> World {
    let mut world = World::furnished();
    set_nat(&mut world, nat);
    world
}

fn set_nat(world: &mut World, nat: &str) {
    let changes = json!({ "nat_addresses": [nat] });
    world.replace_service("provider/shop", changes).unwrap();
}

fn compiled(state: &State, observed: &Observed) -> MapSnapshot {
    compile(state, observed, &MapSnapshot::default()).0
}

/// Returns the key of a SNAT address of the service.
fn key(world: &World, address: &str) -> AddressKey {
    let network: Reference = "provider/net".parse().unwrap();
    let network = &world.state.networks[&network];
    AddressKey {
        network: network.object.number,
        address: IpAddress::from(address.parse::<IpAddr>().unwrap()),
    }
}

fn kind(snapshot: &MapSnapshot, key: &AddressKey) -> Option<u16> {
    snapshot.addresses.get(key).map(|address| address.kind)
}

#[test]
fn tentative_snat_address_is_watched_and_gets_no_flow() {
    let world = world("10.1.0.80/30");
    let mut observed = both_interfaces();
    let tentative = "10.1.0.81".parse().unwrap();
    let network = "provider/net".parse().unwrap();
    observed.tentative.insert((network, tentative));
    let snapshot = compiled(&world.state, &observed);
    let key = |address| key(&world, address);
    assert_eq!(
        kind(&snapshot, &key("10.1.0.81")),
        Some(LocalAddress::TENTATIVE)
    );
    assert_eq!(kind(&snapshot, &key("10.1.0.80")), Some(LocalAddress::NAT));
    let used: Vec<IpAddr> = snapshot
        .nat_addresses
        .values()
        .map(|nat| IpAddr::from(nat.address))
        .collect();
    for (address, expected) in [
        ("10.1.0.80", true),
        ("10.1.0.81", false),
        ("10.1.0.82", true),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(used.contains(&address), expected, "{address}");
    }
    let sizes: Vec<u32> = snapshot
        .ports
        .values()
        .map(|port| port.nat_size_v4)
        .collect();
    assert!(sizes.contains(&3), "{sizes:?}");
}

/// Applies the change from one world to another, and returns the delta.
fn change(
    draining: &mut Draining,
    (old, new): (&MapSnapshot, &World),
    observed: &Observed,
) -> Delta {
    let mut delta = Delta {
        old: old.clone(),
        new: compile(&new.state, observed, old).0,
    };
    draining.keep(&new.state, observed, old, &mut delta);
    delta
}

#[test]
fn address_that_leaves_its_service_drains_until_two_collections_find_no_flow() {
    let (mut world, observed) = (world("10.1.0.80/30"), both_interfaces());
    let before = compiled(&world.state, &observed);
    let left = key(&world, "10.1.0.80");
    set_nat(&mut world, "10.1.0.81");
    let mut draining = Draining::default();
    let now = change(&mut draining, (&before, &world), &observed).new;
    assert_eq!(
        kind(&now, &left),
        Some(LocalAddress::NAT),
        "it is answered for"
    );
    assert!(
        now.nat_addresses
            .values()
            .all(|nat| nat.address != left.address),
        "no new flow gets it"
    );
    assert_eq!(draining.addresses().count(), 3);
    // Compiling again changes nothing.
    let again = change(&mut draining, (&now, &world), &observed);
    assert_eq!(kind(&again.new, &left), Some(LocalAddress::NAT));
    let all: Vec<AddressKey> = draining.addresses().copied().collect();
    for is_used in [false, true, false] {
        let drained = draining.record_collection(&all, |key| *key != left || is_used);
        assert_eq!(drained, []);
    }
    let drained = draining.record_collection(&all, |key| *key != left);
    assert_eq!(drained, [left]);
    let delta = draining.end(&drained, &now);
    assert!(delta.old.addresses.contains_key(&left) && delta.new.addresses.is_empty());
    assert!(!draining.contains(&left));
}

#[test]
fn draining_address_that_something_else_gets_is_released() {
    let (mut world, mut observed) = (world("10.1.0.80/30"), both_interfaces());
    let before = compiled(&world.state, &observed);
    let [server, host, again] = ["10.1.0.80", "10.1.0.82", "10.1.0.83"].map(|a| key(&world, a));
    set_nat(&mut world, "10.1.0.81");
    let mut draining = Draining::default();
    let now = change(&mut draining, (&before, &world), &observed).new;
    observed.host = HostAddresses::from_iter([("10.1.0.82".parse().unwrap(), "veth-p".to_owned())]);
    let resources = json!([{
        "ports": [{ "port": 443 }],
        "backends": [{ "address": "10.1.0.80" }],
    }]);
    let changes = json!({ "nat_addresses": ["10.1.0.81", "10.1.0.83"], "resources": resources });
    world.replace_service("provider/shop", changes).unwrap();
    let delta = change(&mut draining, (&now, &world), &observed);
    for key in [server, host] {
        assert!(
            delta.old.addresses.contains_key(&key),
            "it is removed: {key:?}"
        );
        assert_eq!(kind(&delta.new, &key), None);
    }
    assert_eq!(kind(&delta.new, &again), Some(LocalAddress::NAT));
    assert!(draining.is_empty(), "the service has the last one again");
}
