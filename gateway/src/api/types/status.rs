//! The gateway's status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Status of the gateway.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Version of the agent.
    pub version: String,
    /// True if the data path is in sync with the configuration and the host.
    pub in_sync: bool,
    /// Id of the XDP program in the kernel.
    pub program_id: u32,
    /// Numbers of objects.
    pub objects: Objects,
    /// Numbers of backends.
    pub backends: Backends,
    /// Flows that both sides have confirmed.
    pub established_flows: u64,
    /// Flows that are not established yet.
    pub half_open_flows: u64,
    /// Flows that the table of each address family is made for.
    pub flow_table_size: u64,
    /// Counters of the data path.
    pub statistics: BTreeMap<String, u64>,
    /// Packets dropped or rejected, by drop reason.
    pub drops: BTreeMap<String, u64>,
    /// Problems, each with its remedy.
    pub problems: Vec<String>,
}

/// Numbers of the backends of all services.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Backends {
    /// All backends.
    pub total: usize,
    /// Backends that are given new flows: reachable, healthy, and not draining.
    pub available: usize,
    /// Backends that fail their health checks.
    pub unhealthy: usize,
    /// Resources with backends of which none is available.
    pub unavailable_resources: usize,
}

/// Numbers of objects.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Objects {
    /// Number of tenants.
    pub tenants: usize,
    /// Number of networks.
    pub networks: usize,
    /// Number of services.
    pub services: usize,
    /// Number of endpoints.
    pub endpoints: usize,
}
