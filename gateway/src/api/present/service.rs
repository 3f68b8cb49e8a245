//! Views of services.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::pipeline::{PRIVILEGED_PORT_COUNT, SOURCE_PORT_COUNT};

use crate::{
    address_conflict::ClaimStatus,
    agent::{controller::Controller, status::SnatUsage},
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
            let number = record.object.resource_numbers.get(&resource.name);
            let flows = number.map(|number| controller.backend_flows(*number, backend.address));
            let observed = controller.observed();
            backends.push(BackendStatus {
                resource: resource.name.clone(),
                address: backend.address,
                reachable,
                healthy: health.map(|health| !health.unhealthy),
                available: observed.is_available(reference, spec, resource, backend),
                flows: flows.unwrap_or_default(),
                problem,
            });
        }
    }
    let mut problems = nat_address_problems(controller, &network, spec);
    problems.extend(resource_problems(controller, reference, spec));
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
            problems,
            backends,
            connections,
        },
    }
}

/// Returns the problems with the service's resources: a health check that has no effect, and no available backend.
pub(super) fn resource_problems(
    controller: &Controller,
    reference: &Reference,
    spec: &ServiceSpec,
) -> Vec<String> {
    let mut problems = Vec::new();
    for resource in &spec.resources {
        if let Some(reason) = spec.health_check.ineffective_for(resource) {
            problems.push(format!("the backends are not checked: {reason}"));
        }
        if let Some(reason) = controller.unavailability(reference, spec, resource) {
            problems.push(format!("resource {} {reason}", resource.name));
        }
    }
    problems
}

/// Returns the problems with the service's SNAT addresses: addresses that the host or another host has.
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
    let of_host = host_addresses.filter_map(|address| {
        host.conflict(controller.state(), reference, &network.object, address)
    });
    let unsettled = spec.nat_addresses.iter().flat_map(|range| {
        let (first, last) = range.ends();
        controller.unsettled_addresses(reference, first, last)
    });
    let contested = unsettled.filter_map(|(address, status)| match status {
        ClaimStatus::Conflict(mac) => Some(format!(
            "address {address} is in use by the host with MAC address {mac}, so the service does not use it: remove it \
             from that host, or choose another"
        )),
        ClaimStatus::Disputed(mac) => Some(format!(
            "the host with MAC address {mac} claims address {address}, which the service uses: remove it from that \
             host, or choose another"
        )),
        ClaimStatus::Probing | ClaimStatus::InUse => None,
    });
    of_host.chain(contested).collect()
}

/// Returns the use of the service's SNAT addresses. Only addresses with flows, and those that are not simply in use,
/// are visited, since a list of services can have a million addresses.
fn nat_addresses(
    controller: &Controller,
    reference: &Reference,
    spec: &ServiceSpec,
) -> Vec<NatAddressStatus> {
    let Some(network) = controller.state().networks.get(reference) else {
        return Vec::new();
    };
    let host = &controller.observed().host;
    let number = network.object.number;
    let mut found = BTreeMap::<IpAddr, SnatUsage>::new();
    for range in &spec.nat_addresses {
        let (first, last) = range.ends();
        found.extend(controller.snat_usage(number, first, last));
        let unsettled = controller.unsettled_addresses(reference, first, last);
        let unsettled = unsettled.map(|(address, _)| address);
        for address in unsettled.chain(host.addresses_in(*range)) {
            found.entry(address).or_default();
        }
    }
    let state = |address: IpAddr| {
        let is_host = host.contains(address)
            && host
                .conflict(controller.state(), reference, &network.object, address)
                .is_some();
        if is_host {
            return ("host", None);
        }
        match controller.address_status(&(reference.clone(), address)) {
            Some(ClaimStatus::Probing) => ("probing", None),
            // A service without room in the maps has addresses that are not probed.
            None | Some(ClaimStatus::InUse) => ("in_use", None),
            Some(ClaimStatus::Conflict(mac)) => ("conflict", Some(mac)),
            Some(ClaimStatus::Disputed(mac)) => ("disputed", Some(mac)),
        }
    };
    let found = found.into_iter().map(|(address, used)| {
        let (state, mac_address) = state(address);
        NatAddressStatus {
            address,
            state: state.to_owned(),
            mac_address: mac_address.map(|mac| mac.to_string()),
            flows: used.flows,
            ports_used: used.ports,
            ports_free: u64::from(SOURCE_PORT_COUNT).saturating_sub(used.ports),
            privileged_ports_used: used.privileged_ports,
            privileged_ports_free: u64::from(PRIVILEGED_PORT_COUNT)
                .saturating_sub(used.privileged_ports),
            scarce: used.are_ports_scarce(),
        }
    });
    found.collect()
}
