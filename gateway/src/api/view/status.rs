//! The gateway's status as the operator sees it.

use std::collections::BTreeMap;

use gateway_common::flow::Table;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::controller::Controller;

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
    /// Flows that both sides have confirmed.
    pub established_flows: u64,
    /// Flows that are not established yet.
    pub half_open_flows: u64,
    /// Counters of the data path.
    pub statistics: BTreeMap<String, u64>,
    /// Packets dropped or rejected, by drop reason.
    pub drops: BTreeMap<String, u64>,
    /// Problems, each with its remedy.
    pub problems: Vec<String>,
}

/// Numbers of objects.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Objects {
    /// Tenants.
    pub tenants: usize,
    /// Networks.
    pub networks: usize,
    /// Services.
    pub services: usize,
    /// Endpoints.
    pub endpoints: usize,
}

/// Returns the gateway's status.
///
/// # Errors
/// If counters can't be read from the kernel.
pub fn status(controller: &Controller) -> anyhow::Result<StatusView> {
    let mut problems: Vec<String> = controller
        .host_status()
        .attachments
        .values()
        .flat_map(|state| state.problems.clone())
        .collect();
    problems.extend(controller.capacity_errors().iter().map(ToString::to_string));
    let mut unreachable: Vec<String> = controller
        .host_status()
        .unreachable
        .iter()
        .map(|((network, address), reason)| format!("backend {address} in {network}: {reason}"))
        .collect();
    unreachable.sort();
    problems.extend(unreachable);
    Ok(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        in_sync: controller.in_sync(),
        program_id: controller.program().info()?.id,
        objects: Objects {
            tenants: controller.state().tenants.len(),
            networks: controller.state().networks.len(),
            services: controller.state().services.len(),
            endpoints: controller.state().endpoints.len(),
        },
        established_flows: controller.count_flows(Table::Established)?,
        half_open_flows: controller.count_flows(Table::HalfOpen)?,
        statistics: controller
            .maps()
            .statistics()?
            .into_iter()
            .map(|(statistic, count)| (statistic.name().to_owned(), count))
            .collect(),
        drops: controller
            .maps()
            .drops()?
            .into_iter()
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        problems,
    })
}
