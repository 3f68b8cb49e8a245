//! Services as users see them.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::pipeline::SOURCE_PORT_COUNT;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::controller::Controller,
    api::view::view,
    model::{
        ConnectionState, Meta, Name, Record, Reference, Service, schema, service::ServiceSpec,
    },
};

/// A service's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// What consumers can name it by.
    pub alias: String,
    /// How its backends are.
    pub backends: Vec<BackendStatus>,
    /// What its source NAT addresses carry; those that carry nothing left out.
    pub nat_addresses: Vec<NatAddressStatus>,
    /// What is wrong with its addresses, and what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// How many connections are in each state.
    pub connections: BTreeMap<ConnectionState, usize>,
}

/// How a backend is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackendStatus {
    /// The resource it serves.
    pub resource: Name,
    /// Its address.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// Whether the gateway knows the way to it.
    pub reachable: bool,
    /// Whether it passes its health checks; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Why it is not reachable or not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a source NAT address carries.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NatAddressStatus {
    /// The address.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// Flows from it.
    pub flows: u64,
    /// Ports in use towards the server that most of them go to: a port serves once for each server.
    pub ports_used: u64,
    /// Ports that are left towards that server.
    pub ports_free: u64,
    /// Whether so few are left that the service needs more addresses.
    pub scarce: bool,
}

view! {
    /// A service.
    ServiceView: ServiceSpec, ServiceStatus
}

/// Shows a service.
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
                controller.host_status().unreachable.get(&key).cloned()
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

/// Returns what is wrong with the service's source NAT addresses: those that the host has are not in use.
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

/// Returns the use of the service's source NAT addresses. Only addresses that carry flows are visited, since a list
/// of services can have a million of them.
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
