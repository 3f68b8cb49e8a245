//! Services as users see them.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::stages::SOURCE_PORTS;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{core::Core, duties::is_scarce},
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
pub fn service(core: &Core, reference: &Reference, record: &Record<Service>) -> ServiceView {
    let spec = &record.object.spec;
    let network = Reference::new(reference.tenant.clone(), spec.network.clone());
    let mut backends = Vec::new();
    for resource in &spec.resources {
        for backend in &resource.backends {
            let key = (network.clone(), backend.address);
            let reachable = core.observed().next_hops.contains_key(&key);
            let checked = (reference.clone(), resource.name.clone(), backend.address);
            let health = core.healths.get(&checked);
            let problem = if reachable {
                health
                    .filter(|health| health.unhealthy)
                    .and_then(|health| health.last_error.clone())
            } else {
                core.host.unreachable.get(&key).cloned()
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
    for (_, endpoint) in core.state.endpoints_of_service(reference) {
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
            nat_addresses: nat_addresses(core, &network, spec),
            problems: problems(core, &network, spec),
            backends,
            connections,
        },
    }
}

/// Returns what is wrong with the service's source NAT addresses: those that the host has are not in use.
fn problems(core: &Core, reference: &Reference, spec: &ServiceSpec) -> Vec<String> {
    let host = &core.observed().host;
    let Some(network) = core.state.networks.get(reference) else {
        return Vec::new();
    };
    let of_hosts = spec
        .nat_addresses
        .iter()
        .flat_map(|range| host.within(*range));
    of_hosts
        .filter_map(|address| host.conflict(&core.state, reference, &network.object, address))
        .collect()
}

/// Returns the use of the service's source NAT addresses. Only addresses that carry flows are visited, since a list
/// of services can have a million of them.
fn nat_addresses(core: &Core, network: &Reference, spec: &ServiceSpec) -> Vec<NatAddressStatus> {
    let Some(number) = core.state.networks.get(network).map(|n| n.object.number) else {
        return Vec::new();
    };
    let in_use = spec.nat_addresses.iter().flat_map(|range| {
        let (first, last) = range.ends();
        core.nat_use.range((number, first)..=(number, last))
    });
    in_use
        .map(|((_, address), used)| NatAddressStatus {
            address: *address,
            flows: used.flows,
            ports_used: used.ports,
            ports_free: u64::from(SOURCE_PORTS).saturating_sub(used.ports),
            scarce: is_scarce(*used),
        })
        .collect()
}
