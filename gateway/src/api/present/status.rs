//! View of the gateway's status.

use crate::{
    agent::{controller::Controller, flow_list::count_flows},
    api::{
        present::service::resource_problems,
        types::{Backends, Objects, StatusView},
    },
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
    let mut unreachable: Vec<String> = unreachable
        .map(|((network, address), reason)| format!("backend {address} in {network}: {reason}"))
        .collect();
    unreachable.sort();
    problems.extend(unreachable);
    problems.extend(health_problems(controller));
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
        backends: count_backends(controller),
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

/// Returns the problems of services with their backends: unhealthy ones, and resources without an available one.
fn health_problems(controller: &Controller) -> Vec<String> {
    let mut problems = Vec::new();
    for key in &controller.observed().unhealthy {
        let (service, resource, address) = key;
        let health = controller.backend_health(key);
        let error = health.and_then(|health| health.last_error.as_deref());
        problems.push(format!(
            "backend {address} of service {service}, resource {resource}, is unhealthy: {}",
            error.unwrap_or_default()
        ));
    }
    for (reference, record) in &controller.state().services {
        let found = resource_problems(controller, reference, &record.object.spec);
        problems.extend(
            found
                .iter()
                .map(|problem| format!("service {reference}: {problem}")),
        );
    }
    problems
}

/// Counts the backends of all services.
fn count_backends(controller: &Controller) -> Backends {
    let observed = controller.observed();
    let mut counts = Backends {
        unhealthy: observed.unhealthy.len(),
        ..Backends::default()
    };
    for (reference, record) in &controller.state().services {
        let spec = &record.object.spec;
        for resource in &spec.resources {
            let backends = resource.backends.iter();
            let available = backends
                .filter(|backend| observed.is_available(reference, spec, resource, backend))
                .count();
            counts.total += resource.backends.len();
            counts.available += available;
            counts.unavailable_resources +=
                usize::from(available == 0 && !resource.backends.is_empty());
        }
    }
    counts
}
