//! View of the gateway's status.

use crate::{
    agent::{controller::Controller, flow_list::count_flows},
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
        .keys()
        .flat_map(|interface| controller.attachment_problems(interface))
        .collect();
    problems.extend(controller.capacity_errors().iter().map(ToString::to_string));
    let unreachable = controller.unreachable_backends();
    problems.extend(
        unreachable.map(|((network, address), reason)| {
            format!("backend {address} in {network}: {reason}")
        }),
    );
    let tables = controller.maps().flow_tables();
    let flows = count_flows(tables);
    for (family, table) in ["IPv4", "IPv6"].iter().zip(controller.flow_tables()) {
        if table.is_nearly_full() {
            problems.push(format!(
                "flow table of {family}: {} of {} flows are in use ({} %): set a larger flow_table_size, or limit \
                 the connections of services",
                table.established,
                table.size,
                table.percent()
            ));
        }
    }
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
        established_flows: flows.established,
        half_open_flows: flows.half_open,
        flow_table_size: tables.size().into(),
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
