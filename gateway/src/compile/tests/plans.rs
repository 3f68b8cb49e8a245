//! Each plan leads to the wanted contents, and no step on the way allows what neither the old nor the new contents
//! allow.

use std::collections::BTreeSet;

use gateway_common::maps::{Attachment, Connection, Egress, LocalAddress};
use proptest::prelude::*;
use serde_json::json;

use super::{both_interfaces, observed};
use crate::{
    compile::{
        map_snapshot::MapSnapshot,
        observed::Observed,
        plan::{MapWrite, Plan, apply_to_snapshot, plan},
        recompile::compile,
    },
    model::{Decision, operations::tests::World},
};

/// Applies the plan between two snapshots, checks the contents after every write, and returns the plan.
#[track_caller]
fn apply_checked(old: &MapSnapshot, new: &MapSnapshot) -> Plan {
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
    apply_checked(&MapSnapshot::default(), &first);
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
    let plan = apply_checked(&old, &new);
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
    let plan = apply_checked(&old, &new);
    assert!(matches!(plan.revoke[0], MapWrite::Connection(0, _)));
}

#[test]
fn removed_interface_revokes_its_egress() {
    let world = approved_world();
    let (old, _) = compile(&world.state, &both_interfaces(), &MapSnapshot::default());
    let (new, _) = compile(&world.state, &observed(&[("veth-c", 3)]), &old);
    let plan = apply_checked(&old, &new);
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
    let plan = apply_checked(&old, &new);
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
            apply_checked(&snapshot, &expected);
            snapshot = expected;
        }
    }
}

/// Returns the number of backends that the only resource has, and of those that take new flows.
fn backend_counts(contents: &MapSnapshot) -> (usize, usize) {
    let backends = contents.backends.values();
    let present = backends.filter(|backend| backend.resource != 0).count();
    let selected: BTreeSet<u32> = contents.maglev.values().copied().collect();
    (present, selected.len())
}

#[test]
fn a_service_fails_open_only_if_it_is_set_and_no_backend_is_available() {
    let spec = |action: &str, on_failure: &str| {
        json!({
            "resources": [{
                "ports": [{ "port": 443 }],
                "backends": [
                    { "address": "10.1.0.10" },
                    { "address": "10.1.0.11" },
                    { "address": "10.1.0.12", "drain": true },
                    { "address": "10.1.0.40" },
                ],
            }],
            "health_check": {
                "check": "tcp", "no_healthy_backend": on_failure, "unhealthy_flow_action": action,
            },
        })
    };
    let key = |last: u8| {
        let address = std::net::IpAddr::from([10, 1, 0, last]);
        (
            "provider/shop".parse().unwrap(),
            "default".parse().unwrap(),
            address,
        )
    };
    // The backend 10.1.0.40 has no next hop.
    for (action, on_failure, one, both) in [
        ("keep", "reset", (4, 1), (4, 0)),
        ("reset", "reset", (3, 1), (2, 0)),
        ("keep", "use_all", (4, 1), (4, 2)),
        ("reset", "use_all", (3, 1), (4, 2)),
    ] {
        let mut world = World::furnished();
        world
            .replace_service("provider/shop", spec(action, on_failure))
            .unwrap();
        let mut observed = both_interfaces();
        let compiled = |observed: &Observed| {
            let (contents, _) = compile(&world.state, observed, &MapSnapshot::default());
            backend_counts(&contents)
        };
        assert_eq!(compiled(&observed), (4, 2), "{action} {on_failure}");
        observed.unhealthy.insert(key(10));
        assert_eq!(compiled(&observed), one, "{action} {on_failure}");
        observed.unhealthy.insert(key(11));
        assert_eq!(compiled(&observed), both, "{action} {on_failure}");
        // A backend whose deadline has passed is gone in any case.
        observed.drained.insert(key(12));
        assert_eq!(
            compiled(&observed),
            (both.0 - 1, both.1),
            "{action} {on_failure}"
        );
    }
}
