//! Tables of services.

use crate::{
    api::view::ServiceView,
    cli::{
        commands::{joined, render_labels},
        output::Table,
    },
    model::service::{ConnectionLimits, HealthCheck, HealthCheckKind, SessionAffinity, TenantSet},
};

/// Formats the number of connections in each state as one line.
pub(super) fn connections(service: &ServiceView) -> String {
    let counts = service.status.connections.iter();
    let counts: Vec<String> = counts
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

/// Formats the limits of each endpoint as one line.
fn limits(limits: ConnectionLimits) -> String {
    let ConnectionLimits {
        connection_limit,
        new_connection_rate,
        packet_rate,
        bit_rate,
    } = limits;
    let parts = [
        connection_limit.map(|max| format!("{max} flows")),
        new_connection_rate.map(|max| format!("{max} new flows/s")),
        packet_rate.map(|max| format!("{max} packets/s")),
        bit_rate.map(|max| format!("{max} bit/s")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "no limits".to_owned()
    } else {
        format!("at most {}", parts.join(", "))
    }
}

/// Formats a health check as one line.
fn health(check: &HealthCheck) -> String {
    let port = check.port.map(|port| format!(" on port {port}"));
    let port = port.unwrap_or_default();
    let what = match check.check {
        HealthCheckKind::None => {
            return "none (reachable by ARP or neighbour discovery counts as healthy)".to_owned();
        }
        HealthCheckKind::Tcp => format!("TCP{port}"),
        HealthCheckKind::Http => format!("HTTP{port} {} -> {}", check.path, check.expected_status),
        HealthCheckKind::Https => {
            format!("HTTPS{port} {} -> {}", check.path, check.expected_status)
        }
    };
    format!("{what}, every {} s", check.interval)
}

/// Formats all fields of a service.
pub(super) fn details(service: &ServiceView) -> Table {
    let spec = &service.spec;
    let timeouts = spec.timeouts;
    let fields = Table::Fields(vec![
        ("service", service.reference()),
        ("alias", service.status.alias.clone()),
        ("network", spec.network.to_string()),
        ("SNAT", joined(&spec.nat_addresses)),
        ("problem", service.status.problems.join("; ")),
        (
            "visible to",
            if spec.visibility == TenantSet::None {
                "own tenant only".to_owned()
            } else {
                spec.visibility.to_string()
            },
        ),
        ("auto-approval", spec.auto_approval.to_string()),
        ("denied", spec.denied.to_string()),
        (
            "per tenant",
            spec.max_connections_per_tenant
                .map(|max| format!("at most {max} connections"))
                .unwrap_or_default(),
        ),
        (
            "affinity",
            match spec.session_affinity {
                SessionAffinity::None => String::new(),
                SessionAffinity::ClientAddress => "by the client's address".to_owned(),
            },
        ),
        (
            "timeouts",
            format!(
                "TCP {} s, opening or closing {} s, UDP {} s",
                timeouts.tcp_established, timeouts.tcp_transitory, timeouts.udp
            ),
        ),
        ("each endpoint", limits(spec.limits())),
        ("health check", health(&spec.health_check)),
        ("connections", connections(service)),
        ("labels", render_labels(&service.meta.labels)),
        ("created", service.meta.created_at.to_string()),
    ]);
    let mut ports = Vec::new();
    let mut backends = Vec::new();
    for resource in &spec.resources {
        ports.push(vec![resource.name.to_string(), joined(&resource.ports)]);
        for backend in &resource.backends {
            let status = service.status.backends.iter().find(|status| {
                status.resource == resource.name && status.address == backend.address
            });
            let state = match status {
                _ if backend.drain => "draining".to_owned(),
                Some(status) if status.reachable && status.healthy == Some(false) => format!(
                    "unhealthy: {}",
                    status.problem.as_deref().unwrap_or_default()
                ),
                Some(status) if status.healthy == Some(true) && status.reachable => {
                    "healthy".to_owned()
                }
                Some(status) if status.reachable => "reachable".to_owned(),
                Some(status) => format!(
                    "unreachable: {}",
                    status.problem.as_deref().unwrap_or("not probed yet")
                ),
                None => String::new(),
            };
            backends.push(vec![
                resource.name.to_string(),
                backend.address.to_string(),
                backend.weight.to_string(),
                state,
            ]);
        }
    }
    let mut tables = vec![
        fields,
        Table::Rows(vec!["RESOURCE", "PORTS"], ports),
        Table::Rows(vec!["RESOURCE", "BACKEND", "WEIGHT", "STATE"], backends),
    ];
    let nat: Vec<Vec<String>> = service
        .status
        .nat_addresses
        .iter()
        .map(|nat| {
            vec![
                nat.address.to_string(),
                nat.flows.to_string(),
                nat.ports_used.to_string(),
                if nat.scarce {
                    format!("{}: add addresses", nat.ports_free)
                } else {
                    nat.ports_free.to_string()
                },
            ]
        })
        .collect();
    if !nat.is_empty() {
        let columns = vec!["SNAT ADDRESS", "FLOWS", "PORTS USED", "FREE"];
        tables.push(Table::Rows(columns, nat));
    }
    Table::Several(tables)
}
