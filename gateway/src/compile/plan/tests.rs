//! Tests of plans between compiled states: each leads to the wanted contents, and no step on the way allows what
//! neither the old nor the new contents allow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use gateway_common::{maps::AddressKey, packet::Mac};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    compile::{
        compile_cache::CompileCache,
        compiler::compile,
        dirty::DirtyObjects,
        observed::{Interface, NextHop, Observed},
    },
    model::{ConnectionState, Decision, HostAddresses, operations::tests::World},
};

fn observed(interfaces: &[(&str, u32)]) -> Observed {
    let mut observed = Observed::default();
    for (name, ifindex) in interfaces {
        let interface = Interface {
            ifindex: *ifindex,
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            mtu: 1_500,
        };
        observed.interfaces.insert((*name).to_owned(), interface);
    }
    let hop = NextHop {
        interface: "veth-p".to_owned(),
        mac: Mac::new([2, 0, 0, 0, 0, 9]),
    };
    for last in 9..20 {
        let backend = (
            "provider/net".parse().unwrap(),
            IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)),
        );
        observed.next_hops.insert(backend, hop.clone());
    }
    observed
}

fn both_interfaces() -> Observed {
    observed(&[("veth-c", 3), ("veth-p", 4)])
}

/// Applies the plan between two snapshots, checks the contents after every write, and returns the plan.
#[track_caller]
fn carry_out(old: &MapSnapshot, new: &MapSnapshot) -> Plan {
    let plan = plan(old, new);
    let mut snapshot = old.clone();
    for write in plan.revoke.iter().chain(&plan.grant).chain(&plan.release) {
        apply_to_snapshot(&mut snapshot, *write);
        for (key, address) in &snapshot.addresses {
            if address.is_approved() {
                let allowed = |contents: &MapSnapshot| contents.addresses.get(key) == Some(address);
                assert!(allowed(old) || allowed(new), "{write:?} opened {key:?}");
            }
        }
        for port in snapshot.ports.values() {
            for index in port.nat_offset..port.nat_offset + port.nat_size_v4 + port.nat_size_v6 {
                let owner = snapshot
                    .nat_addresses
                    .get(&index)
                    .map(|address| address.service);
                assert_eq!(
                    owner,
                    Some(port.service),
                    "{write:?} left a hole at {index}"
                );
            }
            for index in port.maglev_offset..port.maglev_offset + port.maglev_size {
                assert!(
                    snapshot.maglev.contains_key(&index),
                    "{write:?} left a hole at {index}"
                );
            }
        }
    }
    let in_use = |contents: &MapSnapshot| MapSnapshot {
        maglev: new
            .maglev
            .keys()
            .map(|place| (*place, contents.maglev[place]))
            .collect(),
        ..contents.clone()
    };
    assert_eq!(in_use(&snapshot), in_use(new));
    plan
}

fn approved_world() -> World {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    world
}

#[test]
fn equal_snapshots_give_an_empty_plan() {
    let world = approved_world();
    let (first, lacks) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    assert_eq!(lacks, []);
    carry_out(&MapSnapshot::default(), &first);
    let (second, _) = compile(&world.state, &both_interfaces(), &first);
    assert_eq!(first, second);
    assert!(plan(&first, &second).is_empty());
}

#[test]
fn pending_endpoint_is_answered_for_but_not_forwarded() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    let (contents, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    let endpoints: Vec<_> = contents
        .addresses
        .values()
        .filter(|address| address.kind == LocalAddress::ENDPOINT)
        .collect();
    assert_eq!(endpoints.len(), 1);
    let address = endpoints[0];
    assert_eq!(
        (address.is_approved(), address.resource, address.generation),
        (false, 0, 0)
    );
    assert_eq!(contents.connections[&0].generation, 0);
}

#[test]
fn rejection_revokes_first() {
    let mut world = approved_world();
    let (old, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    world
        .decide("provider/shop", "consumer/ep", Decision::Reject)
        .unwrap();
    let (new, _) = compile(&world.state, &both_interfaces(), &old);
    let plan = carry_out(&old, &new);
    assert!(
        matches!(
            plan.revoke[0],
            MapWrite::Connection(0, Connection { generation: 0, .. })
        ),
        "{plan:?}"
    );
    assert!(
        plan.revoke
            .iter()
            .any(|write| matches!(write, MapWrite::Address(_, Some(a)) if !a.is_approved()))
    );
}

#[test]
fn second_approval_has_a_new_generation() {
    let mut world = approved_world();
    let (old, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    world
        .decide("provider/shop", "consumer/ep", Decision::Reject)
        .unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    let (new, _) = compile(&world.state, &both_interfaces(), &old);
    assert_ne!(
        old.connections[&0].generation,
        new.connections[&0].generation
    );
    let plan = carry_out(&old, &new);
    assert!(matches!(plan.revoke[0], MapWrite::Connection(0, _)));
}

#[test]
fn removed_interface_revokes_its_egress() {
    let world = approved_world();
    let (old, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    let (new, _) = compile(&world.state, &observed(&[("veth-c", 3)]), &old);
    let plan = carry_out(&old, &new);
    let slot = old.attachments[&4].slot;
    assert_eq!(
        plan.revoke.first(),
        Some(&MapWrite::Egress(slot, Egress::default()))
    );
    assert!(new.backends.values().all(|backend| backend.reachable == 0));
    assert!(new.ports.values().all(|port| port.maglev_size == 0));
}

#[test]
fn service_keeps_its_ranges_when_another_is_added() {
    let mut world = approved_world();
    let (old, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    // The name sorts before the first service's: a compiler that numbers services in order would move its ranges.
    let other = json!({ "nat_addresses": ["10.1.2.0/28"] });
    world.service("provider/auction", other).unwrap();
    let (new, _) = compile(&world.state, &both_interfaces(), &old);
    let plan = carry_out(&old, &new);
    for (key, port) in &old.ports {
        assert_eq!(new.ports.get(key), Some(port));
    }
    assert_eq!((plan.revoke, plan.release), (vec![], vec![]));
}

#[test]
fn isolation_by_default_where_there_is_no_service() {
    let world = approved_world();
    let (contents, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    assert!(contents.attachments[&3].is_isolated());
    assert!(!contents.attachments[&4].is_isolated());
    assert_eq!(contents.attachments[&4].flags & Attachment::PASS_ARP_ND, 2);
}

proptest! {
    /// After any sequence of changes each plan leads to the wanted contents, through allowed contents only.
    #[test]
    fn any_change_is_applied_safely(steps in proptest::collection::vec(0u8..9, 1..24)) {
        let mut world = World::furnished();
        let mut snapshot = MapSnapshot::default();
        let mut interfaces = both_interfaces();
        for step in steps {
            // A step that makes no sense in its state is refused, which must change nothing.
            let _outcome = match step {
                0 => world.endpoint("consumer/a", "10.0.0.101", "provider/shop"),
                1 => world.endpoint("consumer/b", "10.0.0.102", "provider/shop"),
                2 => world.decide_if_there("provider/shop", "consumer/a", Decision::Approve),
                3 => world.decide_if_there("provider/shop", "consumer/a", Decision::Reject),
                4 => world.decide_if_there("provider/shop", "consumer/b", Decision::Approve),
                5 => world.delete_endpoint("consumer/a"),
                6 => world.replace_service("provider/shop", json!({
                    "resources": [{
                        "ports": [{ "port": 443 }, { "port": 80, "backend_port": 8080 }],
                        "backends": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
                    }],
                    "nat_addresses": ["10.1.0.80/30"],
                })),
                7 => world.replace_service("provider/shop", json!({})),
                _ => {
                    interfaces = if interfaces.interfaces.len() == 2 {
                        observed(&[("veth-c", 5)])
                    } else {
                        both_interfaces()
                    };
                    Ok(())
                }
            };
            let (expected, errors) = compile(&world.state, &interfaces, &snapshot);
            prop_assert_eq!(errors, []);
            carry_out(&snapshot, &expected);
            snapshot = expected;
        }
    }

    /// Compiling the dirty objects of a change gives the same contents as compiling the whole state.
    #[test]
    fn incremental_compilation_equals_a_full_one(steps in proptest::collection::vec(0u8..22, 1..40)) {
        let mut world = World::furnished();
        let mut cache = CompileCache::default();
        let mut observed = both_interfaces();
        let parts = cache.rebuild(&world.state, &observed, &MapSnapshot::default());
        let mut snapshot = parts.new;
        cache.commit_rebuilt_allocations();
        for step in steps {
            let mut dirty = DirtyObjects::default();
            world.last = (world.state.clone(), Vec::new());
            let v6 = json!({ "addresses": ["fd00::7"], "service": "provider/shop" });
            let _outcome = match step {
                0 => world.endpoint("consumer/a", "10.0.0.101", "provider/shop"),
                1 => world.endpoint("consumer/b", "10.0.0.102", "provider/auction"),
                2 => world.decide_if_there("provider/shop", "consumer/a", Decision::Approve),
                3 => world.decide_if_there("provider/shop", "consumer/a", Decision::Reject),
                4 => world.decide_if_there("provider/auction", "consumer/b", Decision::Approve),
                5 => world.delete_endpoint("consumer/a"),
                6 => world.replace_service("provider/shop", json!({
                    "resources": [{
                        "ports": [{ "port": 443 }, { "port": 80, "backend_port": 8080 }],
                        "backends": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
                    }],
                    "nat_addresses": ["10.1.0.80/30"],
                    "connection_limit": 5,
                })),
                7 => world.replace_service("provider/shop", json!({})),
                8 => world.service("provider/auction", json!({ "nat_addresses": ["10.1.2.0/28"] })),
                9 => world.delete_service("provider/auction"),
                10 => world.delete_service("provider/shop"),
                11 => world.service("provider/shop", json!({})),
                12 => world.endpoint_with("consumer/six", v6),
                13 => world.delete_endpoint("consumer/six"),
                14 => world.decide_if_there("provider/shop", "consumer/six", Decision::Approve),
                15 => {
                    let key = ("consumer/net".parse().unwrap(), "10.0.0.101".parse().unwrap());
                    let is_tentative = observed.tentative.contains(&key);
                    observed.observe_tentative(&key, !is_tentative, &world.state, &mut dirty);
                    Ok(())
                }
                16 => {
                    let key = (
                        "provider/shop".parse().unwrap(),
                        "default".parse().unwrap(),
                        "10.1.0.10".parse().unwrap(),
                    );
                    let healthy = observed.unhealthy.contains(&key);
                    observed.observe_health(&key, !healthy, &mut dirty);
                    Ok(())
                }
                17 => {
                    let key = ("provider/net".parse().unwrap(), "10.1.0.10".parse().unwrap());
                    let hop = both_interfaces().next_hops.remove(&key);
                    let hop = hop.filter(|_| !observed.next_hops.contains_key(&key));
                    observed.observe_next_hop(&key, hop, &world.state, &mut dirty);
                    Ok(())
                }
                18 => {
                    let seen = host(&[("10.0.0.101", "veth-c"), ("10.1.0.66", "veth-p")]);
                    observed.observe_host_addresses(seen, &world.state, &mut dirty);
                    Ok(())
                }
                19 => {
                    // All SNAT addresses of a service, an endpoint's address on an interface of another network, and an
                    // address on an interface of no network.
                    let all = ["10.1.0.80", "10.1.0.81", "10.1.0.82", "10.1.0.83"];
                    let mut list: Vec<_> = all.iter().map(|address| (*address, "veth-p")).collect();
                    list.extend([("10.0.0.102", "veth-p"), ("10.1.2.3", "eth0")]);
                    observed.observe_host_addresses(host(&list), &world.state, &mut dirty);
                    Ok(())
                }
                20 => {
                    observed.observe_host_addresses(HostAddresses::default(), &world.state, &mut dirty);
                    Ok(())
                }
                _ => {
                    let other = if observed.interfaces.len() == 2 {
                        self::observed(&[("veth-c", 5)])
                    } else {
                        both_interfaces()
                    };
                    for name in ["veth-c", "veth-p"] {
                        let seen = other.interfaces.get(name).copied();
                        observed.observe_interface(name, seen, &world.state, &mut dirty);
                    }
                    Ok(())
                }
            };
            let (state_before, changes) = &world.last;
            dirty.add_changes(state_before, changes);
            let parts = cache.update(&world.state, &observed, &snapshot, dirty);
            let plan = plan(&parts.old, &parts.new);
            for write in plan.revoke.iter().chain(&plan.grant).chain(&plan.release) {
                apply_to_snapshot(&mut snapshot, *write);
            }
            cache.commit_allocations();
            let (whole, errors) = compile(&world.state, &observed, &snapshot);
            prop_assert_eq!(errors, []);
            let rest = super::plan(&snapshot, &whole);
            prop_assert!(rest.is_empty(), "{step}: {rest:?}");
            for key in snapshot.addresses.keys() {
                prop_assert!(!is_hosts(&world, &observed, key), "{step}: {key:?}");
            }
        }
    }

    /// An endpoint reaches only backends of the resource that it is bound to, after any change of the service and
    /// after every write of a plan.
    #[test]
    fn no_sequence_of_calls_lets_an_endpoint_reach_another_resource(
        steps in proptest::collection::vec((0u8..12, 0usize..4), 1..40),
    ) {
        let mut world = World::furnished();
        let resource = |name: &str, backends: &[&str]| {
            let backends: Vec<_> = backends.iter().map(|b| json!({ "address": b })).collect();
            json!({ "name": name, "ports": [{ "port": 5432 }], "backends": backends })
        };
        let versions = [
            json!({ "resources": [resource("one", &["10.1.0.10"]), resource("two", &["10.1.0.11"])] }),
            // The same backends, exchanged between the two resources.
            json!({ "resources": [resource("one", &["10.1.0.11"]), resource("two", &["10.1.0.10"])] }),
            json!({ "resources": [resource("two", &["10.1.0.11", "10.1.0.12"]), resource("one", &["10.1.0.13"])] }),
            json!({ "resources": [resource("three", &["10.1.0.14"]), resource("one", &["10.1.0.10"]), resource("two", &[])] }),
        ];
        let mut cache = CompileCache::default();
        let observed = both_interfaces();
        let mut snapshot = cache.rebuild(&world.state, &observed, &MapSnapshot::default()).new;
        cache.commit_rebuilt_allocations();
        let mut before = reached(&world, &snapshot);
        for (step, which) in steps {
            world.last = (world.state.clone(), Vec::new());
            let bound = |resource: &str, address: &str| json!({
                "addresses": [address], "service": "provider/db", "resource": resource,
            });
            let names = ["consumer/one", "consumer/two", "consumer/three", "consumer/one"];
            let _outcome = match step {
                0 | 1 => world.service("provider/db", db(&versions[which])),
                2..=4 => world.replace_service("provider/db", db(&versions[which])),
                5 => world.delete_service("provider/db"),
                6 => world.endpoint_with("consumer/one", bound("one", "10.0.0.101")),
                7 => world.endpoint_with("consumer/two", bound("two", "10.0.0.102")),
                8 => world.endpoint_with("consumer/three", bound("three", "10.0.0.103")),
                9 | 10 => world.decide_if_there("provider/db", names[which], Decision::Approve),
                _ => world.delete_endpoint(names[which]),
            };
            let allowed = allowed(&world);
            let (state_before, changes) = &world.last;
            let mut dirty = DirtyObjects::default();
            dirty.add_changes(state_before, changes);
            let parts = cache.update(&world.state, &observed, &snapshot, dirty);
            let plan = plan(&parts.old, &parts.new);
            for write in plan.revoke.iter().chain(&plan.grant).chain(&plan.release) {
                apply_to_snapshot(&mut snapshot, *write);
                for (address, backend) in reached(&world, &snapshot) {
                    let pair = (address, backend);
                    prop_assert!(
                        allowed.contains(&pair) || before.contains(&pair),
                        "{address} reaches {backend} after {write:?}"
                    );
                }
            }
            cache.commit_allocations();
            before = reached(&world, &snapshot);
            prop_assert!(before.is_subset(&allowed), "{before:?} {allowed:?}");
        }
    }
}

fn host(addresses: &[(&str, &str)]) -> HostAddresses {
    let pairs = addresses
        .iter()
        .map(|(address, name)| (address.parse().unwrap(), (*name).to_owned()));
    pairs.collect()
}

/// Returns true if the key's address belongs to the host in the key's network.
fn is_hosts(world: &World, observed: &Observed, key: &AddressKey) -> bool {
    let mut networks = world.state.networks.iter();
    let found = networks.find(|(_, record)| record.object.number == key.network);
    found.is_some_and(|(reference, record)| {
        let address = key.address.into();
        let conflict = observed
            .host
            .conflict(&world.state, reference, &record.object, address);
        conflict.is_some()
    })
}

/// Returns the specification of a database service.
fn db(version: &serde_json::Value) -> serde_json::Value {
    let mut version = version.clone();
    version["nat_addresses"] = json!(["10.1.3.0/30"]);
    version
}

/// Returns the pairs of endpoint address and backend address that approved connections allow.
fn allowed(world: &World) -> BTreeSet<(IpAddr, IpAddr)> {
    let mut allowed = BTreeSet::new();
    for record in world.state.endpoints.values() {
        let endpoint = &record.object;
        let service = world
            .state
            .services
            .get(&endpoint.service_identity.reference);
        let resource = service
            .filter(|service| service.meta.uid == endpoint.service_identity.uid)
            .and_then(|service| service.object.spec.resource(&endpoint.resource));
        if endpoint.connection.state == ConnectionState::Approved {
            for backend in resource.into_iter().flat_map(|resource| &resource.backends) {
                allowed.insert((endpoint.addresses[0], backend.address));
            }
        }
    }
    allowed
}

/// Returns the pairs of endpoint address and backend address that the map contents allow, as the data path reads them.
fn reached(world: &World, contents: &MapSnapshot) -> BTreeSet<(IpAddr, IpAddr)> {
    let network = &world.state.networks[&"consumer/net".parse().unwrap()];
    let mut reached = BTreeSet::new();
    for (key, address) in &contents.addresses {
        if key.network != network.object.number || !address.is_approved() {
            continue;
        }
        for (port_key, port) in &contents.ports {
            if port_key.resource != address.resource {
                continue;
            }
            for index in port.maglev_offset..port.maglev_offset + port.maglev_size {
                let slot = contents.maglev.get(&index);
                let backend = slot.and_then(|slot| contents.backends.get(slot));
                // The data path rejects a backend of another resource.
                let backend = backend.filter(|backend| backend.resource == address.resource);
                reached.extend(backend.map(|b| (key.address.into(), b.address.into())));
            }
        }
    }
    reached
}
