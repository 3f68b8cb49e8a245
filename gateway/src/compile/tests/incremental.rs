//! Incremental compilation gives the same contents as the compilation of the whole state.

use gateway_common::maps::AddressKey;
use proptest::prelude::*;
use serde_json::json;

use super::both_interfaces;
use crate::{
    compile::{
        compile_cache::CompileCache,
        dirty::DirtyObjects,
        map_snapshot::MapSnapshot,
        observed::Observed,
        plan::{apply_to_snapshot, plan},
        recompile::compile,
    },
    model::{Decision, HostAddresses, operations::tests::World},
};

proptest! {
    /// Compiling the dirty objects of a change gives the same contents as compiling the whole state.
    #[test]
    fn incremental_compilation_equals_a_full_one(steps in proptest::collection::vec(0u8..28, 1..40)) {
        let mut world = World::furnished();
        let mut cache = CompileCache::default();
        let mut observed = both_interfaces();
        let delta = cache.rebuild(&world.state, &observed, &MapSnapshot::default());
        let mut snapshot = delta.new;
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
                22 => world.replace_service("provider/shop", json!({
                    "health_check": { "no_healthy_backend": "use_all", "unhealthy_flow_action": "reset" },
                })),
                23 => world.reconnect("consumer/a", json!({ "service": "provider/auction" })),
                24 => world.decide_if_there("provider/shop", "consumer/a", Decision::Remove),
                25 => {
                    let key = (
                        "provider/shop".parse().unwrap(),
                        "default".parse().unwrap(),
                        "10.1.0.10".parse().unwrap(),
                    );
                    let drained = observed.drained.contains(&key);
                    observed.observe_drained(&key, !drained, &mut dirty);
                    Ok(())
                }
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
                    let unhealthy = observed.unhealthy.contains(&key);
                    observed.observe_health(&key, !unhealthy, &mut dirty);
                    Ok(())
                }
                17 => {
                    let key = ("provider/net".parse().unwrap(), "10.1.0.10".parse().unwrap());
                    let hop = both_interfaces().next_hops.remove(&key);
                    let hop = hop.filter(|_| !observed.next_hops.contains_key(&key));
                    observed.observe_next_hop(&key, hop, &world.state, &mut dirty);
                    Ok(())
                }
                26 => {
                    let key = ("provider/net".parse().unwrap(), "10.1.0.81".parse().unwrap());
                    let is_tentative = observed.tentative.contains(&key);
                    observed.observe_tentative(&key, !is_tentative, &world.state, &mut dirty);
                    Ok(())
                }
                27 => {
                    let mut interface = observed.interfaces.get("veth-p").copied();
                    if let Some(interface) = &mut interface {
                        interface.has_carrier = !interface.has_carrier;
                    }
                    observed.observe_interface("veth-p", interface, &world.state, &mut dirty);
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
                        super::observed(&[("veth-c", 5)])
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
            let delta = cache.update(&world.state, &observed, &snapshot, dirty);
            let plan = plan(&delta.old, &delta.new);
            for write in plan.revoke.iter().chain(&plan.grant).chain(&plan.release) {
                apply_to_snapshot(&mut snapshot, *write);
            }
            cache.commit_allocations();
            let (whole, errors) = compile(&world.state, &observed, &snapshot);
            prop_assert_eq!(errors, []);
            let rest = crate::compile::plan::plan(&snapshot, &whole);
            prop_assert!(rest.is_empty(), "{step}: {rest:?}");
            for key in snapshot.addresses.keys() {
                prop_assert!(!is_host_address(&world, &observed, key), "{step}: {key:?}");
            }
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
fn is_host_address(world: &World, observed: &Observed, key: &AddressKey) -> bool {
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
