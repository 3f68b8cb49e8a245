//! Isolation of resources: an endpoint reaches the backends of its resource only.

use std::{collections::BTreeSet, net::IpAddr};

use proptest::prelude::*;
use serde_json::json;

use super::both_interfaces;
use crate::{
    compile::{
        compile_cache::CompileCache,
        dirty::DirtyObjects,
        map_snapshot::MapSnapshot,
        plan::{apply_to_snapshot, plan},
    },
    model::{ConnectionState, Decision, operations::tests::World},
};

proptest! {
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
            let delta = cache.update(&world.state, &observed, &snapshot, dirty);
            let plan = plan(&delta.old, &delta.new);
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
