//! Arguments of `plgw service`.

use clap::Args;

use crate::{
    cli::commands::LabelArguments,
    model::{
        Name, Reference,
        address::AddressRange,
        service::{
            Backend, HealthCheck, HealthCheckKind, NoBackendAction, NoHealthyBackend, Payload,
            Port, ServiceSpec, SessionAffinity, StatusRange, TenantSet, UnhealthyFlowAction,
            UnmatchedPacketAction,
        },
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    pub(super) service: Reference,
    /// The provider's network, which contains the backends
    #[arg(long, value_name = "NET")]
    pub(super) network: String,
    /// A port to offer: PORT[/udp][:BACKEND_PORT], or * for every port; repeatable
    #[arg(long = "port", value_name = "PORT", required = true)]
    pub(super) ports: Vec<Port>,
    /// A backend: ADDRESS[,weight=N]; repeatable
    #[arg(long = "backend", value_name = "ADDRESS")]
    pub(super) backends: Vec<Backend>,
    /// SNAT addresses, the source addresses of consumers' flows: a CIDR, a range FIRST-LAST or one address; repeatable
    #[arg(long = "nat", value_name = "CIDR", required = true)]
    pub(super) nat_addresses: Vec<AddressRange>,
    /// The name of the first resource
    #[arg(long, value_name = "NAME")]
    pub(super) resource: Option<Name>,
    #[command(flatten)]
    pub(super) settings: SettingsArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    pub(super) service: Reference,
    /// SNAT addresses that replace the present ones; repeatable
    #[arg(long = "nat", value_name = "CIDR")]
    pub(super) nat_addresses: Vec<AddressRange>,
    #[command(flatten)]
    pub(super) settings: SettingsArguments,
}

/// Settings that `create` and `update` share.
#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// Tenants that can see the service: names separated by commas, * for all, empty for none
    #[arg(long, value_name = "TENANTS", value_parser = parse_tenants)]
    visibility: Option<TenantSet>,
    /// Tenants whose connection requests are approved automatically
    #[arg(long, value_name = "TENANTS", value_parser = parse_tenants)]
    auto_approval: Option<TenantSet>,
    /// Tenants that can't use the service; takes precedence over the other two lists
    #[arg(long, value_name = "TENANTS", value_parser = parse_tenants)]
    denied: Option<TenantSet>,
    /// Maximum number of connections of each tenant
    #[arg(long, value_name = "N")]
    max_connections_per_tenant: Option<u32>,
    /// Action for new flows when no backend is available
    #[arg(long, value_enum, value_name = "ACTION")]
    no_backend_action: Option<NoBackendAction>,
    /// Affinity that keeps a client's flows on one backend
    #[arg(long, value_enum, value_name = "AFFINITY")]
    session_affinity: Option<SessionAffinity>,
    /// Source ports from 512 to 1023 for clients with a source port below 1024, as NFS servers demand
    #[arg(long, value_name = "BOOL")]
    preserve_privileged_ports: Option<bool>,
    /// Idle timeout of established TCP flows, in seconds
    #[arg(long, value_name = "SECONDS")]
    tcp_established_timeout: Option<u32>,
    /// Idle timeout of TCP flows that are opening or closing, in seconds
    #[arg(long, value_name = "SECONDS")]
    tcp_transitory_timeout: Option<u32>,
    /// Idle timeout of UDP flows, in seconds
    #[arg(long, value_name = "SECONDS")]
    udp_timeout: Option<u32>,
    /// Action for packets that match no flow
    #[arg(long, value_enum, value_name = "ACTION")]
    unmatched_packet_action: Option<UnmatchedPacketAction>,
    /// Maximum number of flows of each endpoint; 0 for no limit
    #[arg(long, value_name = "N")]
    connection_limit: Option<u32>,
    /// Maximum number of new flows per second of each endpoint; 0 for no limit
    #[arg(long, value_name = "N")]
    new_connection_rate: Option<u32>,
    /// Maximum number of packets per second of each endpoint, in each direction; 0 for no limit
    #[arg(long, value_name = "N")]
    packet_rate: Option<u32>,
    /// Maximum number of bits per second of each endpoint, in each direction; 0 for no limit
    #[arg(long, value_name = "N")]
    bit_rate: Option<u64>,
    #[command(flatten)]
    health: HealthArguments,
    #[command(flatten)]
    pub(super) labels: LabelArguments,
}

/// Health check settings.
#[derive(Debug, Args)]
struct HealthArguments {
    /// Health check type
    #[arg(long, value_enum, value_name = "TYPE")]
    health_check: Option<HealthCheckKind>,
    /// Backend port to check; 0 for the resource's first port of the check's protocol
    #[arg(long, value_name = "PORT")]
    health_port: Option<u16>,
    /// Interval between checks, in seconds
    #[arg(long, value_name = "SECONDS")]
    health_interval: Option<u32>,
    /// Timeout of a check, in seconds
    #[arg(long, value_name = "SECONDS")]
    health_timeout: Option<u32>,
    /// Consecutive successful checks that make a backend healthy
    #[arg(long, value_name = "N")]
    healthy_threshold: Option<u32>,
    /// Consecutive failed checks that make a backend unhealthy
    #[arg(long, value_name = "N")]
    unhealthy_threshold: Option<u32>,
    /// Path that HTTP checks request
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// HTTP status code that counts as success, or a range such as 200-399
    #[arg(long, value_name = "STATUS")]
    health_status: Option<StatusRange>,
    /// Payload that UDP checks send: text, with \n, \r, \t, \\ and \xHH for other bytes
    #[arg(long, value_name = "PAYLOAD")]
    health_send: Option<Payload>,
    /// Beginning of the answer that UDP checks expect, written like the payload; empty if no answer is expected
    #[arg(long, value_name = "PAYLOAD")]
    health_expect: Option<Payload>,
    /// Action for a resource that has no healthy backend: reset as --no-backend-action says, or use all backends as if
    /// they were healthy
    #[arg(long, value_enum, value_name = "ACTION")]
    no_healthy_backend: Option<NoHealthyBackend>,
    /// Action for the flows of an unhealthy backend
    #[arg(long, value_enum, value_name = "ACTION")]
    unhealthy_flow_action: Option<UnhealthyFlowAction>,
}

impl HealthArguments {
    /// Sets the given fields of a service's health check.
    fn apply(&self, health: &mut HealthCheck) {
        set(&mut health.check, self.health_check);
        let port = self
            .health_port
            .map(|port| Some(port).filter(|port| *port != 0));
        set(&mut health.port, port);
        set(&mut health.interval, self.health_interval);
        set(&mut health.timeout, self.health_timeout);
        set(&mut health.healthy_threshold, self.healthy_threshold);
        set(&mut health.unhealthy_threshold, self.unhealthy_threshold);
        set(&mut health.path, self.health_path.clone());
        set(&mut health.expected_status, self.health_status);
        if self
            .health_check
            .is_some_and(|kind| kind != HealthCheckKind::Udp)
        {
            // Another check has no payload.
            (health.send, health.expect) = Default::default();
        }
        set(&mut health.send, self.health_send.clone());
        set(&mut health.expect, self.health_expect.clone());
        set(&mut health.no_healthy_backend, self.no_healthy_backend);
        set(
            &mut health.unhealthy_flow_action,
            self.unhealthy_flow_action,
        );
    }
}

/// Sets a field, if a value was given.
fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

/// Returns the given limit, of which 0 means none, or else the current one.
fn limit_or_current<T: Copy + Default + PartialEq>(
    given: Option<T>,
    current: Option<T>,
) -> Option<T> {
    given.map_or(current, |given| {
        Some(given).filter(|given| *given != T::default())
    })
}

fn parse_tenants(text: &str) -> Result<TenantSet, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    TenantSet::try_from(names.map(str::to_owned).collect::<Vec<_>>())
}

impl SettingsArguments {
    /// Sets the given fields of a service.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) {
        set(&mut spec.visibility, self.visibility.clone());
        set(&mut spec.auto_approval, self.auto_approval.clone());
        set(&mut spec.denied, self.denied.clone());
        spec.max_connections_per_tenant = self
            .max_connections_per_tenant
            .or(spec.max_connections_per_tenant);
        set(&mut spec.no_backend_action, self.no_backend_action);
        set(&mut spec.session_affinity, self.session_affinity);
        set(
            &mut spec.preserve_privileged_ports,
            self.preserve_privileged_ports,
        );
        set(
            &mut spec.unmatched_packet_action,
            self.unmatched_packet_action,
        );
        spec.connection_limit = limit_or_current(self.connection_limit, spec.connection_limit);
        spec.new_connection_rate =
            limit_or_current(self.new_connection_rate, spec.new_connection_rate);
        spec.packet_rate = limit_or_current(self.packet_rate, spec.packet_rate);
        spec.bit_rate = limit_or_current(self.bit_rate, spec.bit_rate);
        self.health.apply(&mut spec.health_check);
        let timeouts = &mut spec.timeouts;
        set(&mut timeouts.tcp_established, self.tcp_established_timeout);
        set(&mut timeouts.tcp_transitory, self.tcp_transitory_timeout);
        set(&mut timeouts.udp, self.udp_timeout);
    }
}
