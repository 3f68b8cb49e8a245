//! Services as the API shows them.

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
    /// Name of the service that does not reveal its tenant.
    pub alias: String,
    /// Status of each backend.
    pub backends: Vec<BackendStatus>,
    /// Use of the SNAT addresses; unused addresses are omitted.
    pub nat_addresses: Vec<NatAddressStatus>,
    /// Problems with the SNAT addresses, each with its remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Number of connections in each state.
    pub connections: BTreeMap<ConnectionState, usize>,
}

/// Status of a backend.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackendStatus {
    /// The resource that it serves.
    pub resource: Name,
    /// Address of the backend.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// True if the gateway knows the backend's next hop.
    pub reachable: bool,
    /// True if the backend passes its health checks; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Reason why it is unreachable or unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Use of an SNAT address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NatAddressStatus {
    /// The address.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// Flows with this source address.
    pub flows: u64,
    /// Ports in use towards the backend with most flows. Each backend has the whole range of ports.
    pub ports_used: u64,
    /// Free ports towards that backend.
    pub ports_free: u64,
    /// True if so few ports are free that the service needs more SNAT addresses.
    pub scarce: bool,
}

view! {
    /// A service.
    ServiceView: ServiceSpec, ServiceStatus
}

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
