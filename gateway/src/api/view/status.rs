//! How the gateway is, as its operator sees it.

use std::collections::BTreeMap;

use gateway_common::flow::Table;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::controller::Controller;

/// How the gateway is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// The agent's version.
    pub version: String,
    /// Whether the data path holds what it should.
    pub in_sync: bool,
    /// The kernel's number for the XDP program.
    pub program_id: u32,
    /// How many objects there are.
    pub objects: Objects,
    /// Flows both sides agreed to.
    pub established_flows: u64,
    /// Flows that are being opened.
    pub half_open_flows: u64,
    /// What the data path counts.
    pub statistics: BTreeMap<String, u64>,
    /// Packets dropped or reset, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// How many objects there are.
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

/// Shows how the gateway is.
///
/// # Errors
/// When the kernel does not tell.
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
