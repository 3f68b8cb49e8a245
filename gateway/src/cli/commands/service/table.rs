//! Tables of services.

use jiff::Timestamp;

use crate::{
    cli::{
        commands::{joined, render_labels},
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::types::{BackendStatus, NatAddressStatus, ServiceView},
    model::service::{
        Backend, ConnectionLimits, HealthCheck, HealthCheckKind, NoHealthyBackend, Resource,
        SessionAffinity, TenantSet,
    },
};

/// Formats the number of connections in each state as one line.
fn connections(service: &ServiceView) -> String {
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
        HealthCheckKind::Udp if check.expect.is_empty() => format!("UDP{port}, no ICMP error"),
        HealthCheckKind::Udp => format!("UDP{port} -> \"{}\"", check.expect),
    };
    let open = match check.no_healthy_backend {
        NoHealthyBackend::Reset => "",
        NoHealthyBackend::UseAll => "; if none is healthy, all are used",
    };
    format!("{what}, every {} s{open}", check.interval)
}

impl ListedObject for ServiceView {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "NETWORK", "BACKENDS", "CONNECTIONS", "ALIAS"];

    fn rows(&self) -> Vec<Vec<String>> {
        let backends = &self.status.backends;
        let available = backends.iter().filter(|backend| backend.available).count();
        vec![vec![
            self.reference(),
            self.spec.network.to_string(),
            format!("{available}/{}", backends.len()),
            connections(self),
            self.status.alias.clone(),
        ]]
    }
}

impl ShownObject for ServiceView {
    fn details(&self) -> Table {
        let spec = &self.spec;
        let timeouts = spec.timeouts;
        let fields = Table::Fields(vec![
            ("service", self.reference()),
            ("alias", self.status.alias.clone()),
            ("network", spec.network.to_string()),
            ("SNAT", joined(&spec.nat_addresses)),
            ("problem", self.status.problems.join("; ")),
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
                "source ports",
                if spec.preserve_privileged_ports {
                    "512 to 1023 for clients with a port below 1024".to_owned()
                } else {
                    String::new()
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
            ("connections", connections(self)),
            ("labels", render_labels(&self.meta.labels)),
            ("created", self.meta.created_at.to_string()),
        ]);
        let resources = spec.resources.iter();
        let ports = resources
            .clone()
            .map(|resource| vec![resource.name.to_string(), joined(&resource.ports)]);
        let backends = resources.flat_map(|resource| {
            let backends = resource.backends.iter();
            backends.map(|backend| {
                vec![
                    resource.name.to_string(),
                    backend.address.to_string(),
                    backend.weight.to_string(),
                    backend_flows(self, resource, backend),
                    backend_state(self, resource, backend),
                ]
            })
        });
        let mut tables = vec![
            fields,
            Table::Rows(vec!["RESOURCE", "PORTS"], ports.collect()),
            Table::Rows(
                vec!["RESOURCE", "BACKEND", "WEIGHT", "FLOWS", "STATE"],
                backends.collect(),
            ),
        ];
        let snat: Vec<Vec<String>> = self.status.nat_addresses.iter().map(snat_row).collect();
        if !snat.is_empty() {
            let header = vec!["SNAT ADDRESS", "STATE", "FLOWS", "PORTS USED", "FREE"];
            tables.push(Table::Rows(header, snat));
        }
        Table::Several(tables)
    }
}

fn backend_status<'a>(
    service: &'a ServiceView,
    resource: &Resource,
    backend: &Backend,
) -> Option<&'a BackendStatus> {
    let mut backends = service.status.backends.iter();
    backends.find(|status| status.resource == resource.name && status.address == backend.address)
}

/// Formats the number of a backend's flows.
fn backend_flows(service: &ServiceView, resource: &Resource, backend: &Backend) -> String {
    let status = backend_status(service, resource, backend);
    status.map_or_else(String::new, |status| status.flows.to_string())
}

/// Formats the state of a backend.
fn backend_state(service: &ServiceView, resource: &Resource, backend: &Backend) -> String {
    if backend.drain {
        return match backend.drain_deadline {
            None => "draining".to_owned(),
            Some(deadline) if deadline <= Timestamp::now() => {
                format!("drained: flows were reset at {deadline}")
            }
            Some(deadline) => format!("draining until {deadline}"),
        };
    }
    let Some(status) = backend_status(service, resource, backend) else {
        return String::new();
    };
    let problem = status.problem.as_deref();
    match (status.reachable, status.healthy) {
        (true, Some(false)) => format!("unhealthy: {}", problem.unwrap_or_default()),
        (true, Some(true)) => "healthy".to_owned(),
        (true, None) => "reachable".to_owned(),
        (false, _) => format!("unreachable: {}", problem.unwrap_or("not probed yet")),
    }
}

/// Returns the row of a SNAT address.
fn snat_row(status: &NatAddressStatus) -> Vec<String> {
    vec![
        status.address.to_string(),
        status.state.replace('_', " "),
        status.flows.to_string(),
        match status.privileged_ports_used {
            0 => status.ports_used.to_string(),
            privileged => format!("{}, privileged {privileged}", status.ports_used),
        },
        {
            let mut free = status.ports_free.to_string();
            if status.privileged_ports_used > 0 {
                free += &format!(", privileged {}", status.privileged_ports_free);
            }
            if status.scarce {
                free += ": add addresses";
            }
            free
        },
    ]
}
