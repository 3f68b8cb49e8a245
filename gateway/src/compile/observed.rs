//! Observed state of the host, and the objects that a change of it makes dirty. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::packet::Mac;

use crate::{
    compile::dirty::DirtyObjects,
    model::{
        HostAddresses, Name, Reference, State,
        address::AddressRange,
        service::{Backend, NoHealthyBackend, Resource, ServiceSpec},
    },
};

/// Network and address of a backend.
pub type BackendKey = (Reference, IpAddr);

/// Service, resource and address of a backend.
pub type HealthCheckKey = (Reference, Name, IpAddr);

/// Observed state of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces by name that are set up, and have the program attached.
    pub interfaces: BTreeMap<String, Interface>,
    /// Next hops of the backends whose neighbour is resolved.
    pub next_hops: HashMap<BackendKey, ObservedNextHop>,
    /// Backends that fail their health checks.
    pub unhealthy: BTreeSet<HealthCheckKey>,
    /// Draining backends whose deadline has passed.
    pub drained: BTreeSet<HealthCheckKey>,
    /// Addresses of endpoints and of SNAT, with their network, that another host may still have (address conflict
    /// detection).
    pub tentative: BTreeSet<(Reference, IpAddr)>,
    /// Addresses of the host's own interfaces.
    pub host: HostAddresses,
}

/// An interface that is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index of the interface.
    pub ifindex: u32,
    /// MAC address of the interface.
    pub mac: Mac,
    /// Largest IP packet that the interface takes, in bytes.
    pub mtu: u32,
    /// False if the interface has lost its carrier. It keeps its slot then, since flow entries refer to it, but sends
    /// nothing.
    pub has_carrier: bool,
}

/// Neighbour to which packets for a backend are sent: the backend itself, or a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNextHop {
    /// Name of the egress interface.
    pub interface: String,
    /// MAC address of the neighbour.
    pub mac: Mac,
}

impl Observed {
    /// Records the host's own addresses.
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

    /// Marks the objects dirty that use an address of the host.
    ///
    /// To be called when attachments change: an address of the host counts only in the network that its interface is
    /// attached to.
    pub fn mark_host_address_users(&self, state: &State, dirty: &mut DirtyObjects) {
        mark_address_users(&self.host, state, dirty);
    }

    /// Returns true if the backend fails its health checks.
    #[must_use]
    pub fn is_unhealthy(&self, service: &Reference, resource: &Resource, address: IpAddr) -> bool {
        let key = (service.clone(), resource.name.clone(), address);
        !self.unhealthy.is_empty() && self.unhealthy.contains(&key)
    }

    /// Returns true if the backend is draining and its deadline has passed, so that its flows have ended.
    #[must_use]
    pub fn is_drained(&self, service: &Reference, resource: &Resource, address: IpAddr) -> bool {
        let key = (service.clone(), resource.name.clone(), address);
        !self.drained.is_empty() && self.drained.contains(&key)
    }

    /// Returns true if the backend can take new flows: it is in rotation, reachable, and passes its health checks.
    #[must_use]
    pub fn is_available(
        &self,
        service: &Reference,
        spec: &ServiceSpec,
        resource: &Resource,
        backend: &Backend,
    ) -> bool {
        let network = Reference::new(service.tenant.clone(), spec.network.clone());
        backend.is_in_rotation()
            && self.next_hops.contains_key(&(network, backend.address))
            && !self.is_unhealthy(service, resource, backend.address)
    }

    /// Returns true if the resource has no available backend, and its service then uses unhealthy ones as if they were
    /// healthy.
    #[must_use]
    pub fn fails_open(&self, service: &Reference, spec: &ServiceSpec, resource: &Resource) -> bool {
        let mut backends = resource.backends.iter();
        spec.health_check.no_healthy_backend == NoHealthyBackend::UseAll
            && !backends.any(|backend| self.is_available(service, spec, resource, backend))
    }

    /// Records the state of an interface, or `None` if it can't be used.
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

    /// Records the next hop of a backend, or `None` if it can't be reached.
    pub fn observe_next_hop(
        &mut self,
        key: &BackendKey,
        seen: Option<ObservedNextHop>,
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

    /// Records the result of a backend's health checks.
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

    /// Records whether the deadline of a draining backend has passed.
    pub fn observe_drained(
        &mut self,
        key: &HealthCheckKey,
        drained: bool,
        dirty: &mut DirtyObjects,
    ) {
        let changed = if drained {
            self.drained.insert(key.clone())
        } else {
            self.drained.remove(key)
        };
        if changed {
            dirty.services.insert(key.0.clone());
        }
    }

    /// Records whether another host may still have an address of an endpoint or of SNAT.
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
            let occupancy = state.occupancy(network);
            let service = occupancy.nat_range_at(*address);
            dirty
                .services
                .extend(service.map(|(_, service)| service.clone()));
        }
    }
}

/// Marks the endpoints and services of all networks dirty that use one of the addresses.
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
