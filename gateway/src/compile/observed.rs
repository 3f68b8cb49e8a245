//! What was observed of the host, and which objects' part of the maps that concerns. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::packet::Mac;

use crate::{
    compile::dirty::DirtyObjects,
    model::{HostAddresses, Name, Reference, State, address::AddressRange, service::Resource},
};

/// A backend of a provider's network.
pub type BackendKey = (Reference, IpAddr);

/// A backend of a service's resource.
pub type HealthCheckKey = (Reference, Name, IpAddr);

/// What was observed of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces that can carry packets, by name: up, and with the program attached.
    pub interfaces: BTreeMap<String, Interface>,
    /// Where backends are, as far as their networks' stations answered.
    pub next_hops: HashMap<BackendKey, NextHop>,
    /// Backends that fail their health checks: service, resource, address.
    pub unhealthy: BTreeSet<HealthCheckKey>,
    /// Endpoints' addresses, by network, of which it is not known yet that nobody else has them.
    pub tentative: BTreeSet<(Reference, IpAddr)>,
    /// Addresses that the host has itself.
    pub host: HostAddresses,
}

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub ifindex: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// The largest IP packet that it takes, in bytes.
    pub mtu: u32,
}

/// The station to which packets for a backend go: the backend itself, or a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that leads there.
    pub interface: String,
    /// The station's hardware address.
    pub mac: Mac,
}

impl Observed {
    /// Takes in which addresses the host has.
    pub fn observe_host_addresses(
        &mut self,
        seen: HostAddresses,
        state: &State,
        dirty: &mut DirtyObjects,
    ) {
        let changed = self.host.difference(&seen);
        self.host = seen;
        mark_address_users(&changed, state, dirty);
    }

    /// Adds to the scope what has an address of the host's. Whether that counts depends on which interface
    /// is in which network.
    pub fn mark_host_address_users(&self, state: &State, dirty: &mut DirtyObjects) {
        mark_address_users(&self.host, state, dirty);
    }

    /// Whether the backend fails its health checks.
    #[must_use]
    pub fn is_unhealthy(&self, service: &Reference, resource: &Resource, address: IpAddr) -> bool {
        let key = (service.clone(), resource.name.clone(), address);
        !self.unhealthy.is_empty() && self.unhealthy.contains(&key)
    }

    /// Takes in how an interface is: none if it can't carry packets.
    pub fn observe_interface(
        &mut self,
        name: &str,
        seen: Option<Interface>,
        state: &State,
        dirty: &mut DirtyObjects,
    ) {
        if self.interfaces.get(name) == seen.as_ref() {
            return;
        }
        match seen {
            Some(interface) => self.interfaces.insert(name.to_owned(), interface),
            None => self.interfaces.remove(name),
        };
        if let Some(network) = state.network_by_interface(name) {
            dirty.networks.insert(network.clone());
            let services = state.services_of_network(network);
            let services = services.map(|(service, _)| service.clone());
            dirty.services.extend(services);
        }
    }

    /// Takes in where a backend is: none if it can't be reached.
    pub fn observe_next_hop(
        &mut self,
        key: &BackendKey,
        seen: Option<NextHop>,
        state: &State,
        dirty: &mut DirtyObjects,
    ) {
        if self.next_hops.get(key) == seen.as_ref() {
            return;
        }
        match seen {
            Some(hop) => self.next_hops.insert(key.clone(), hop),
            None => self.next_hops.remove(key),
        };
        let (network, address) = key;
        let occupancy = state.occupancy(network);
        let services = occupancy.backends_in(AddressRange::one(*address));
        dirty
            .services
            .extend(services.map(|(_, service)| service.clone()));
    }

    /// Takes in whether a backend fails its health checks.
    pub fn observe_health(
        &mut self,
        key: &HealthCheckKey,
        unhealthy: bool,
        dirty: &mut DirtyObjects,
    ) {
        let changed = if unhealthy {
            self.unhealthy.insert(key.clone())
        } else {
            self.unhealthy.remove(key)
        };
        if changed {
            dirty.services.insert(key.0.clone());
        }
    }

    /// Takes in whether it is not known of an address that nobody else has it.
    pub fn observe_tentative(
        &mut self,
        key: &(Reference, IpAddr),
        tentative: bool,
        state: &State,
        dirty: &mut DirtyObjects,
    ) {
        let changed = if tentative {
            self.tentative.insert(key.clone())
        } else {
            self.tentative.remove(key)
        };
        if changed {
            let (network, address) = key;
            let endpoint = state.endpoint_by_address(network, *address);
            dirty.endpoints.extend(endpoint.cloned());
        }
    }
}

/// Adds to the scope the endpoints and services of all networks that have one of the addresses.
fn mark_address_users(addresses: &HostAddresses, state: &State, dirty: &mut DirtyObjects) {
    if addresses.is_empty() {
        return;
    }
    for network in state.networks.keys() {
        for address in addresses.addresses() {
            let endpoint = state.endpoint_by_address(network, address);
            dirty.endpoints.extend(endpoint.cloned());
        }
    }
    for (service, record) in &state.services {
        let mut ranges = record.object.spec.nat_addresses.iter();
        if ranges.any(|range| addresses.has_address_in(*range)) {
            dirty.services.insert(service.clone());
        }
    }
}
