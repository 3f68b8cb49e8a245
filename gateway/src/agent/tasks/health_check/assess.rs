//! Availability of a service's backends and resources.

use std::collections::BTreeMap;

use crate::{
    agent::{
        availability::{Observation, Subject},
        controller::Controller,
    },
    model::{
        Reference,
        service::{Backend, HealthCheckKind, Resource, ServiceSpec},
    },
};

/// Returns the availability of each backend that is in rotation, and of each resource that has a backend. A service
/// without a health check has none, since nothing watches its backends.
pub(super) fn availability(
    controller: &Controller,
    service: &Reference,
) -> BTreeMap<Subject, Observation> {
    let mut observations = BTreeMap::new();
    let Some(record) = controller.state().services.get(service) else {
        return observations;
    };
    let spec = &record.object.spec;
    if spec.health_check.check == HealthCheckKind::None {
        return observations;
    }
    for resource in &spec.resources {
        let backends = resource.backends.iter();
        let mut definite = true;
        for backend in backends.filter(|backend| backend.is_in_rotation()) {
            let observed = backend_availability(controller, service, spec, resource, backend);
            definite &= observed.definite;
            let subject = (resource.name.clone(), Some(backend.address));
            observations.insert(subject, observed);
        }
        if resource.backends.is_empty() {
            continue;
        }
        let reason = controller.unavailability(service, spec, resource);
        let observed = Observation {
            available: reason.is_none(),
            definite,
            reason: reason.unwrap_or_default(),
        };
        observations.insert((resource.name.clone(), None), observed);
    }
    observations
}

fn backend_availability(
    controller: &Controller,
    service: &Reference,
    spec: &ServiceSpec,
    resource: &Resource,
    backend: &Backend,
) -> Observation {
    let observed = controller.observed();
    let unhealthy = observed.is_unhealthy(service, resource, backend.address);
    let reason = if unhealthy {
        let key = (service.clone(), resource.name.clone(), backend.address);
        let health = controller.backend_health(&key);
        health.and_then(|health| health.last_error.clone())
    } else {
        let network = Reference::new(service.tenant.clone(), spec.network.clone());
        controller.backend_problem(&(network, backend.address))
    };
    Observation {
        available: observed.is_available(service, spec, resource, backend),
        definite: unhealthy,
        reason: reason.unwrap_or_else(|| "can't be reached".to_owned()),
    }
}
