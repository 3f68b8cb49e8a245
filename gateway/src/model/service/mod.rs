//! Services: the provider's side of private links.

mod backend;
mod check;
mod flow_policy;
mod health;
mod limits;
mod payload;
mod port;
mod request;
mod resource;
mod size;
mod spec;
mod tenants;

pub use backend::{Backend, MAX_WEIGHT};
pub use flow_policy::{NoBackendAction, SessionAffinity, Timeouts, UnmatchedPacketAction};
pub use health::{
    HealthCheck, HealthCheckKind, HealthState, NoHealthyBackend, StatusRange, UnhealthyFlowAction,
};
pub use limits::ConnectionLimits;
pub use payload::Payload;
pub use port::{Port, PortNumber, Protocol};
pub use request::ServiceRequest;
pub use resource::{Resource, default_resource};
pub use size::service_size;
pub use spec::ServiceSpec;
pub use tenants::TenantSet;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Name;

/// Stored service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Settings of the provider.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Alias, `NAME.RANDOM.DOMAIN`. Generated when the service is created.
    pub alias: String,
    /// Identifier of the service in the data path.
    pub number: u32,
    /// Identifiers of the resources in the data path.
    pub resource_numbers: BTreeMap<Name, u32>,
}

/// Maximum number of SNAT addresses of a service.
pub const MAX_NAT_ADDRESSES: u64 = 1_024;
/// Maximum number of backends of a resource.
pub const MAX_BACKENDS: usize = 256;
const MAX_RESOURCES: usize = 256;
const MAX_PORTS: usize = 1_024;
