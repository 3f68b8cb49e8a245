//! Views of services.

use std::collections::BTreeMap;

use gateway_common::pipeline::SOURCE_PORT_COUNT;

use crate::{
    agent::controller::Controller,
    api::types::{BackendStatus, NatAddressStatus, ServiceStatus, ServiceView},
    model::{Record, Reference, Service, service::ServiceSpec},
};

/// Returns the view of a service.
#[must_use]
pub fn service(
    controller: &Controller,
    reference: &Reference,
    record: &Record<Service>,
) -> ServiceView {
    let spec = &record.object.spec;
    let network = Reference::new(reference.tenant.clone(), spec.network.clone());
    let mut backends = Vec::new();
    for resource in &spec.resources {
        for backend in &resource.backends {
            let key = (network.clone(), backend.address);
            let reachable = controller.observed().next_hops.contains_key(&key);
            let checked = (reference.clone(), resource.name.clone(), backend.address);
            let health = controller.backend_health(&checked);
            let problem = if reachable {
                health
                    .filter(|health| health.unhealthy)
                    .and_then(|health| health.last_error.clone())
            } else {
                controller.backend_problem(&key)
            };
            backends.push(BackendStatus {
                resource: resource.name.clone(),
                address: backend.address,
                reachable,
                healthy: health.map(|health| !health.unhealthy),
                problem,
            });
        }
    }
    let mut connections = BTreeMap::new();
    for (_, endpoint) in controller.state().endpoints_of_service(reference) {
        if endpoint.object.service_identity.uid == record.meta.uid {
            *connections
                .entry(endpoint.object.connection.state)
                .or_default() += 1;
        }
    }
    ServiceView {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: spec.clone(),
        status: ServiceStatus {
            alias: record.object.alias.clone(),
            nat_addresses: nat_addresses(controller, &network, spec),
            problems: nat_address_problems(controller, &network, spec),
            backends,
            connections,
        },
    }
}

/// Returns the problems with the service's SNAT addresses: addresses that the host has are not used.
fn nat_address_problems(
    controller: &Controller,
    reference: &Reference,
    spec: &ServiceSpec,
) -> Vec<String> {
    let host = &controller.observed().host;
    let Some(network) = controller.state().networks.get(reference) else {
        return Vec::new();
    };
    let host_addresses = spec
        .nat_addresses
        .iter()
        .flat_map(|range| host.addresses_in(*range));
    host_addresses
        .filter_map(|address| {
            host.conflict(controller.state(), reference, &network.object, address)
        })
        .collect()
}

/// Returns the use of the service's SNAT addresses. Only addresses with flows are visited, since a list of services can
/// have a million addresses.
fn nat_addresses(
    controller: &Controller,
    network: &Reference,
    spec: &ServiceSpec,
) -> Vec<NatAddressStatus> {
    let Some(number) = controller
        .state()
        .networks
        .get(network)
        .map(|n| n.object.number)
    else {
        return Vec::new();
    };
    let in_use = spec.nat_addresses.iter().flat_map(|range| {
        let (first, last) = range.ends();
        controller.snat_usage(number, first, last)
    });
    in_use
        .map(|(address, used)| NatAddressStatus {
            address,
            flows: used.flows,
            ports_used: used.ports,
            ports_free: u64::from(SOURCE_PORT_COUNT).saturating_sub(used.ports),
            scarce: used.are_ports_scarce(),
        })
        .collect()
}
