//! Availability of services, and the events about it.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{
    agent::controller::{Controller, Desired},
    model::{
        Reference,
        event::{AvailabilityChange, events_for_availability},
        service::{HealthCheckKind, NoBackendAction, Resource, ServiceSpec},
    },
    store::StoreError,
};

impl Controller {
    /// Returns the statement that a resource has no available backend, with the effect on new flows, worded to follow
    /// the resource's name. `None` if it has one, or no backend at all.
    #[must_use]
    pub fn unavailability(
        &self,
        service: &Reference,
        spec: &ServiceSpec,
        resource: &Resource,
    ) -> Option<String> {
        let observed = &self.observed.compiled;
        let count = resource.backends.len();
        let mut backends = resource.backends.iter();
        if count == 0 || backends.any(|b| observed.is_available(service, spec, resource, b)) {
            return None;
        }
        let state = if spec.health_check.check == HealthCheckKind::None {
            "reachable"
        } else {
            "healthy"
        };
        let effect = if self.takes_flows(service, spec, resource) {
            "all reachable ones are used"
        } else if spec.no_backend_action == NoBackendAction::Drop {
            "new flows are dropped"
        } else {
            "new flows are rejected"
        };
        Some(format!(
            "has no {state} backend in rotation (of {count}): {effect}"
        ))
    }

    /// Returns true if a backend of the resource can take new flows, healthy or not.
    #[must_use]
    pub fn takes_flows(
        &self,
        service: &Reference,
        spec: &ServiceSpec,
        resource: &Resource,
    ) -> bool {
        let observed = &self.observed.compiled;
        let network = Reference::new(service.tenant.clone(), spec.network.clone());
        let fails_open = observed.fails_open(service, spec, resource);
        let mut backends = resource.backends.iter();
        backends.any(|backend| {
            let is_reachable = || {
                let key = (network.clone(), backend.address);
                observed.next_hops.contains_key(&key)
            };
            observed.is_available(service, spec, resource, backend)
                || (fails_open && backend.is_in_rotation() && is_reachable())
        })
    }

    /// Returns the number of flows of a backend at the last collection. The resource is named by its number.
    #[must_use]
    pub fn backend_flows(&self, resource: u32, address: IpAddr) -> u64 {
        let flows = self.observed.backend_flows.get(&(resource, address));
        flows.copied().unwrap_or_default()
    }

    /// Stores events about changes of availability.
    ///
    /// # Errors
    /// When the store can't be written.
    pub(in crate::agent) fn record_availability(
        &mut self,
        changes: &[AvailabilityChange],
    ) -> Result<(), StoreError> {
        self.desired.record_availability(changes)
    }
}

impl Desired {
    fn record_availability(&mut self, changes: &[AvailabilityChange]) -> Result<(), StoreError> {
        let ticks = self.event_clock.next_ticks();
        let now = Timestamp::now();
        let events = events_for_availability(changes, now, ticks, &mut self.identifiers);
        let writes = self.event_log.writes(&events)?;
        let revision = self.store.commit(&writes)?;
        let evictions = self.event_log.append(events, revision);
        self.webhook_queue.record_evictions(&self.state, &evictions);
        Ok(())
    }
}
