//! View of the gateway's status.

use gateway_common::flow::Table;

use crate::{
    agent::controller::Controller,
    api::types::{Objects, StatusView},
};

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
