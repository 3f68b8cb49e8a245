//! Wire types of services.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::types::view,
    model::{ConnectionState, Meta, Name, schema, service::ServiceSpec},
};

/// A service's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Name of the service that does not reveal its tenant.
    pub alias: String,
    /// Status of each backend.
    pub backends: Vec<BackendStatus>,
    /// Use of the SNAT addresses; those that are in use, but have no flows, are omitted.
    pub nat_addresses: Vec<NatAddressStatus>,
    /// Problems with the SNAT addresses, the health check and the resources, each with its remedy or its effect.
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
    /// True if new flows are given to the backend in preference to others: it is reachable, healthy, and not draining.
    pub available: bool,
    /// Number of flows at the last flow garbage collection.
    pub flows: u64,
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
    /// `probing`: address conflict detection is in progress, and the service does not use the address yet; `in_use`;
    /// `conflict`: another host has the address, so the service does not use it; `disputed`: the service uses the
    /// address, and another host claims it; `host`: the gateway's host has the address, so the service does not use it.
    pub state: String,
    /// MAC address of the other host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Flows with this source address.
    pub flows: u64,
    /// Ports from 1,024 on in use towards the backend with most flows. Each backend has the whole range of ports.
    pub ports_used: u64,
    /// Free ports from 1,024 on towards that backend.
    pub ports_free: u64,
    /// Ports below 1,024 in use towards the backend with most of them.
    pub privileged_ports_used: u64,
    /// Free ports from 512 to 1,023 towards that backend, for a service that preserves privileged ports.
    pub privileged_ports_free: u64,
    /// True if so few ports are free that the service needs more SNAT addresses.
    pub scarce: bool,
}

view! {
    /// A service.
    ServiceView: ServiceSpec, ServiceStatus
}

/// Options of deleting a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeleteServiceParameters {
    /// Delete the service even if connections to it are approved; their flows end at once.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
}
