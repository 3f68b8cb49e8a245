//! Observed state: what tasks report to the controller.

use log::warn;

use crate::{
    address_conflict::NetworkAddress,
    agent::controller::{Controller, Observations},
    compile::{
        dirty::DirtyObjects,
        observed::{BackendKey, HealthCheckKey, Interface, ObservedNextHop},
    },
    model::{Change, Endpoint, HostAddresses, Object, Reference, State},
};

impl Controller {
    /// Records the state of an interface; `None` if it can't carry packets.
    pub(in crate::agent) fn observe_interface(&mut self, name: &str, seen: Option<Interface>) {
        self.observed.compiled.observe_interface(
            name,
            seen,
            &self.desired.state,
            &mut self.datapath.dirty_objects,
        );
    }

    /// Records the host's own addresses.
    pub(in crate::agent) fn observe_host_addresses(&mut self, seen: HostAddresses) {
        let dirty_objects = &mut self.datapath.dirty_objects;
        let count_dirty = |dirty: &DirtyObjects| dirty.endpoints.len() + dirty.services.len();
        let before = count_dirty(dirty_objects);
        self.observed
            .compiled
            .observe_host_addresses(seen, &self.desired.state, dirty_objects);
        let dirty = count_dirty(dirty_objects) - before;
        if dirty > 0 {
            warn!(
                "host: addresses of tenants' objects added to or removed from the host services_and_endpoints={dirty}"
            );
        }
    }

    /// Records the next hop of a backend; `None` if it can't be reached.
    pub(in crate::agent) fn observe_next_hop(
        &mut self,
        key: &BackendKey,
        seen: Option<ObservedNextHop>,
    ) {
        self.observed.compiled.observe_next_hop(
            key,
            seen,
            &self.desired.state,
            &mut self.datapath.dirty_objects,
        );
    }

    /// Records if a backend fails its health checks.
    pub(in crate::agent) fn observe_health(&mut self, key: &HealthCheckKey, unhealthy: bool) {
        self.observed
            .compiled
            .observe_health(key, unhealthy, &mut self.datapath.dirty_objects);
    }
}

impl Observations {
    /// Adds and removes endpoints' addresses for conflict detection. `state` is the one before the changes.
    pub(super) fn track_endpoint_addresses(&mut self, state: &State, changes: &[Change]) {
        for change in changes {
            if let Object::Network(..) = change.object() {
                // The network may have another interface now.
                self.conflict_detector
                    .retry_parked(&change.object().reference());
            }
            let Object::Endpoint(tenant, record) = change.object() else {
                continue;
            };
            let keys = |endpoint: &Endpoint| -> Vec<NetworkAddress> {
                let network = Reference::new(tenant.clone(), endpoint.network.clone());
                let addresses = endpoint.addresses.iter();
                addresses.map(|a| (network.clone(), *a)).collect()
            };
            let old = state.endpoints.get(&change.object().reference());
            let old = old.map(|old| keys(&old.object)).unwrap_or_default();
            let new = match change {
                Change::Put(_) => keys(&record.object),
                Change::Delete(_) => Vec::new(),
            };
            for key in old.iter().filter(|key| !new.contains(key)) {
                self.conflict_detector.remove(key);
            }
            for key in new {
                self.conflict_detector.add(key);
            }
        }
    }
}
