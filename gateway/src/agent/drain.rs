//! Deadlines of draining backends. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    compile::observed::HealthCheckKey,
    model::{Record, Reference, Service, State},
};

/// Returns the deadlines of a service's draining backends.
fn deadlines<'a>(
    service: &'a Reference,
    record: &'a Record<Service>,
) -> impl Iterator<Item = (HealthCheckKey, Timestamp)> + 'a {
    record.object.spec.resources.iter().flat_map(|resource| {
        let backends = resource.backends.iter().filter(|backend| backend.drain);
        backends.filter_map(|backend| {
            let key = (service.clone(), resource.name.clone(), backend.address);
            Some((key, backend.drain_deadline?))
        })
    })
}

/// Returns the backends of services whose deadline has passed.
#[must_use]
pub fn drained_backends<'a>(
    state: &'a State,
    services: impl IntoIterator<Item = &'a Reference>,
    now: Timestamp,
) -> BTreeSet<HealthCheckKey> {
    let services = services.into_iter();
    let services = services.filter_map(|service| state.services.get_key_value(service));
    let all = services.flat_map(|(service, record)| deadlines(service, record));
    all.filter(|(_, deadline)| *deadline <= now)
        .map(|(key, _)| key)
        .collect()
}

/// Deadlines that have not passed yet.
#[derive(Debug, Default)]
pub(in crate::agent) struct DrainDeadlines(BTreeMap<HealthCheckKey, Timestamp>);

impl DrainDeadlines {
    /// Takes over the backends of a service. Returns those whose deadline has passed.
    pub(in crate::agent) fn set_service(
        &mut self,
        state: &State,
        service: &Reference,
        now: Timestamp,
    ) -> BTreeSet<HealthCheckKey> {
        self.0.retain(|key, _| key.0 != *service);
        let record = state.services.get(service).into_iter();
        let mut passed = BTreeSet::new();
        for (key, deadline) in record.flat_map(|record| deadlines(service, record)) {
            if deadline <= now {
                passed.insert(key);
            } else {
                self.0.insert(key, deadline);
            }
        }
        passed
    }

    /// Removes and returns the backends whose deadline has passed by now.
    pub(in crate::agent) fn take_passed(&mut self, now: Timestamp) -> Vec<HealthCheckKey> {
        let passed = self.0.extract_if(.., |_, deadline| *deadline <= now);
        passed.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::operations::tests::World;

    #[test]
    fn a_deadline_passes_once_and_is_forgotten_with_the_drain() {
        let time = |text: &str| -> Timestamp { format!("2026-01-01T{text}Z").parse().unwrap() };
        let spec = |backend: serde_json::Value| json!({ "resources": [{ "ports": [{ "port": 443 }], "backends": [backend] }] });
        let draining = spec(json!({
            "address": "10.1.0.10", "drain": true, "drain_deadline": "2026-01-01T10:05:00Z",
        }));
        let shop: Reference = "provider/shop".parse().unwrap();
        let mut world = World::furnished();
        world.replace_service("provider/shop", draining).unwrap();
        let mut deadlines = DrainDeadlines::default();
        let early = time("10:04:59");
        assert!(deadlines.set_service(&world.state, &shop, early).is_empty());
        assert!(drained_backends(&world.state, [&shop], early).is_empty());
        assert!(deadlines.take_passed(early).is_empty());
        let passed = deadlines.take_passed(time("10:05:00"));
        assert_eq!(passed.len(), 1);
        assert!(deadlines.take_passed(time("10:06:00")).is_empty());
        let late = time("10:06:00");
        assert_eq!(deadlines.set_service(&world.state, &shop, late).len(), 1);
        assert_eq!(drained_backends(&world.state, [&shop], late).len(), 1);
        let back = spec(json!({ "address": "10.1.0.10" }));
        world.replace_service("provider/shop", back).unwrap();
        assert!(deadlines.set_service(&world.state, &shop, late).is_empty());
        assert!(drained_backends(&world.state, [&shop], late).is_empty());
        let pointless = spec(json!({
            "address": "10.1.0.10", "drain_deadline": "2026-01-01T10:05:00Z",
        }));
        let problem = world
            .replace_service("provider/shop", pointless)
            .unwrap_err();
        assert!(problem.detail.contains("set drain"), "{problem}");
    }
}
