//! Scan plan: the interfaces and backends of a dirty set, with the networks that they are scanned for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compile::observed::BackendKey,
    host::{dirty_set::HostDirtySet, next_hops::NextHopResolver},
    model::{Reference, State},
};

/// Number of dirty items above which the whole host is scanned: one dump of all costs the kernel less than a request
/// for each.
const MAX_TARGETED_ITEMS: usize = 1_000;

/// Interfaces and backends to scan, with the networks that they are scanned for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPlan {
    /// True if the plan covers the whole host.
    pub is_full: bool,
    /// Interfaces, with the network that each is attached to, if any.
    pub links: BTreeMap<String, Option<Reference>>,
    /// Interfaces that must receive all multicast.
    pub multicast_interfaces: BTreeSet<String>,
    /// Backends, with the interfaces of their networks. Empty if no service has the backend any more.
    pub backends: BTreeMap<BackendKey, Vec<String>>,
}

impl ScanPlan {
    /// Returns the plan for a dirty set under the present state.
    #[must_use]
    pub fn from_dirty_set(
        dirty: &HostDirtySet,
        state: &State,
        next_hops: &NextHopResolver,
    ) -> Self {
        let items = dirty.links.len() + dirty.backends.len() + dirty.neighbours.len();
        if dirty.all || items > MAX_TARGETED_ITEMS {
            return Self::full(state, next_hops);
        }
        let mut plan = Self::default();
        let mut backends = dirty.backends.clone();
        for name in &dirty.links {
            let network = state.network_by_interface(name);
            if let Some(network) = network {
                backends.extend(backends_of(state, network));
            }
            plan.links.insert(name.clone(), network.cloned());
        }
        for neighbour in &dirty.neighbours {
            backends.extend(next_hops.backends_behind(neighbour).cloned());
        }
        let networks: BTreeSet<&Reference> = backends.iter().map(|(network, _)| network).collect();
        let in_use: BTreeSet<BackendKey> = networks
            .into_iter()
            .flat_map(|network| backends_of(state, network))
            .filter(|key| backends.contains(key))
            .collect();
        for key in backends {
            let names = if in_use.contains(&key) {
                interfaces_of(state, &key.0)
            } else {
                Vec::new()
            };
            plan.backends.insert(key, names);
        }
        let linked = plan.links.values().flatten();
        let linked = linked.filter(|network| state.has_ipv6(network));
        for network in linked.chain(&dirty.multicast_networks) {
            plan.multicast_interfaces
                .extend(interfaces_of(state, network));
        }
        plan
    }

    fn full(state: &State, next_hops: &NextHopResolver) -> Self {
        let mut plan = Self {
            is_full: true,
            ..Self::default()
        };
        for (name, network) in state.interfaces() {
            plan.links.insert(name.clone(), Some(network.clone()));
            if state.has_ipv6(network) {
                plan.multicast_interfaces.insert(name.clone());
            }
        }
        for key in next_hops.backends() {
            plan.backends.insert(key.clone(), Vec::new());
        }
        for network in state.networks.keys() {
            let names = interfaces_of(state, network);
            let backends = backends_of(state, network);
            plan.backends
                .extend(backends.map(|key| (key, names.clone())));
        }
        plan
    }
}

/// Returns the backends of the network's services.
fn backends_of<'a>(
    state: &'a State,
    network: &'a Reference,
) -> impl Iterator<Item = BackendKey> + 'a {
    state
        .services_of_network(network)
        .flat_map(|(_, record)| &record.object.spec.resources)
        .flat_map(|resource| &resource.backends)
        .map(|backend| (network.clone(), backend.address))
}

/// Returns the names of the network's interfaces.
fn interfaces_of(state: &State, network: &Reference) -> Vec<String> {
    let record = state.networks.get(network).into_iter();
    let attachments = record.flat_map(|record| &record.object.attachments);
    attachments.map(|a| a.interface.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        compile::observed::{Interface, Observed},
        model::operations::tests::World,
        netlink::HostEvents,
    };

    fn key(address: &str) -> BackendKey {
        ("provider/net".parse().unwrap(), address.parse().unwrap())
    }

    /// Returns the plan for the last change.
    fn scan_plan_after(world: &World) -> ScanPlan {
        let (before, changes) = &world.last;
        let mut dirty = HostDirtySet::default();
        dirty.add_changes(before, changes);
        ScanPlan::from_dirty_set(&dirty, &world.state, &NextHopResolver::default())
    }

    fn world_has(world: &World, key: &BackendKey) -> bool {
        backends_of(&world.state, &key.0).any(|other| other == *key)
    }

    #[test]
    fn service_change_scans_current_and_former_backends() {
        let mut world = World::furnished();
        let spec = json!({
            "resources": [{
                "ports": [{ "port": 443 }],
                "backends": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
            }],
        });
        world.replace_service("provider/shop", spec).unwrap();
        let plan = scan_plan_after(&world);
        assert!(!plan.is_full && plan.links.is_empty());
        for address in ["10.1.0.11", "10.1.0.12"] {
            assert_eq!(plan.backends[&key(address)], ["veth-p"], "{address}");
        }
        let (before, _) = &world.last;
        let network = key("10.1.0.11").0;
        let mut given_up: Vec<_> = backends_of(before, &network).collect();
        given_up.retain(|key| !world_has(&world, key));
        assert!(!given_up.is_empty());
        for key in given_up {
            assert_eq!(plan.backends[&key], Vec::<String>::new(), "{key:?}");
        }
    }

    #[test]
    fn endpoint_change_scans_multicast_interfaces_for_ipv6_only() {
        let mut world = World::furnished();
        world
            .endpoint("consumer/a", "10.0.0.101", "provider/shop")
            .unwrap();
        assert_eq!(scan_plan_after(&world), ScanPlan::default());
        let v6 = json!({ "addresses": ["fd00::7"], "service": "provider/shop" });
        world.endpoint_with("consumer/six", v6).unwrap();
        let plan = scan_plan_after(&world);
        assert_eq!(
            plan.multicast_interfaces,
            BTreeSet::from(["veth-c".to_owned()])
        );
        assert!(plan.links.is_empty() && plan.backends.is_empty());
    }

    #[test]
    fn host_events_scan_only_backends_in_use() {
        let world = World::furnished();
        let mut next_hops = NextHopResolver::default();
        let backend = key("10.1.0.10");
        let neighbour = (4, "10.1.0.1".parse().unwrap());
        next_hops.set(&backend, Ok(neighbour), std::time::Instant::now());
        let mut dirty = HostDirtySet::default();
        let events = HostEvents {
            resync_all: false,
            links: BTreeSet::from([("lo".to_owned(), 1)]),
            neighbours: BTreeSet::from([neighbour, (4, "10.1.0.77".parse().unwrap())]),
        };
        dirty.add_events(events, &Observed::default());
        let plan = ScanPlan::from_dirty_set(&dirty, &world.state, &next_hops);
        assert_eq!(plan.backends.len(), 1);
        assert_eq!(plan.backends[&backend], ["veth-p"]);
        assert_eq!(plan.links, BTreeMap::from([("lo".to_owned(), None)]));
        // The interface was observed under another name.
        let mut observed = Observed::default();
        let interface = Interface {
            ifindex: 4,
            mac: gateway_common::packet::Mac::new([2, 0, 0, 0, 0, 4]),
            mtu: 1_500,
            has_carrier: true,
        };
        observed.interfaces.insert("veth-p".to_owned(), interface);
        let events = HostEvents {
            links: BTreeSet::from([("renamed".to_owned(), 4)]),
            ..HostEvents::default()
        };
        dirty.add_events(events, &observed);
        let plan = ScanPlan::from_dirty_set(&dirty, &world.state, &next_hops);
        assert!(plan.backends.contains_key(&backend));
        assert_eq!(plan.links["renamed"], None);
        assert_eq!(plan.links["veth-p"], Some("provider/net".parse().unwrap()));
    }

    #[test]
    fn too_many_items_become_a_full_scan() {
        let world = World::furnished();
        let mut dirty = HostDirtySet::default();
        for number in 0..=u32::try_from(MAX_TARGETED_ITEMS).unwrap() {
            dirty.links.insert(format!("x{number}"));
        }
        assert!(
            ScanPlan::from_dirty_set(&dirty, &world.state, &NextHopResolver::default()).is_full
        );
        assert!(!dirty.is_empty() && HostDirtySet::default().is_empty());
    }
}
