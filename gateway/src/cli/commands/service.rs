//! `gateway service`.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    api::view::ServiceView,
    cli::{
        client::Client,
        commands::{LabelArguments, joined, path, shown},
        output::Table,
    },
    model::{
        Name, Reference,
        address::AddressRange,
        service::{
            Backend, Check, ConnectionLimits, HealthCheck, NoBackend, NoFlow, Port, Resource,
            ServiceRequest, ServiceSpec, SessionAffinity, StatusRange, TenantSet, UnhealthyFlows,
            default_resource,
        },
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Offer a service, with one resource
    Create(Create),
    /// Change who may see a service, and what its flows get; what is not given stays as it is
    Update(Update),
    /// Add, drain or remove a backend
    #[command(subcommand)]
    Backend(BackendCommand),
    /// List services
    List {
        /// Only those of this tenant
        tenant: Option<String>,
    },
    /// Show a service
    Show {
        /// The service
        #[arg(value_name = "TENANT/NAME")]
        service: Reference,
    },
    /// Delete a service
    Delete {
        /// The service
        #[arg(value_name = "TENANT/NAME")]
        service: Reference,
        /// Even though connections are approved: they are cut
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    service: Reference,
    /// The provider's network that its backends are in
    #[arg(long, value_name = "NET")]
    network: String,
    /// A port to offer: PORT[/udp][:BACKEND_PORT], or * for every port; can be given several times
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    /// A server: ADDRESS[,weight=N]; can be given several times
    #[arg(long = "backend", value_name = "ADDRESS")]
    backends: Vec<Backend>,
    /// Addresses from which consumers appear: a CIDR, a range FIRST-LAST or one address
    #[arg(long = "nat", value_name = "CIDR", required = true)]
    nat_addresses: Vec<AddressRange>,
    /// The resource's name
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
    #[command(flatten)]
    settings: SettingsArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    service: Reference,
    /// Addresses from which consumers appear, in place of those it has; can be given several times
    #[arg(long = "nat", value_name = "CIDR")]
    nat_addresses: Vec<AddressRange>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// What both creating and changing a service set.
#[derive(Debug, Args)]
struct SettingsArguments {
    /// Who may see the service: tenants, separated by commas, or *; empty for none
    #[arg(long, value_name = "TENANTS", value_parser = tenants)]
    visibility: Option<TenantSet>,
    /// Whose requests are approved at once
    #[arg(long, value_name = "TENANTS", value_parser = tenants)]
    auto_approval: Option<TenantSet>,
    /// Who may not, whatever the other two say
    #[arg(long, value_name = "TENANTS", value_parser = tenants)]
    denied: Option<TenantSet>,
    /// How many connections each tenant may have
    #[arg(long, value_name = "N")]
    max_connections_per_tenant: Option<u32>,
    /// What a client gets when no backend can take its flow
    #[arg(long, value_enum, value_name = "WHAT")]
    no_backend: Option<NoBackendArgument>,
    /// What keeps a client's flows on one backend
    #[arg(long, value_enum, value_name = "WHAT")]
    session_affinity: Option<SessionAffinityArgument>,
    /// Seconds after which an idle TCP connection is forgotten
    #[arg(long, value_name = "SECONDS")]
    tcp_established_timeout: Option<u32>,
    /// Seconds after which one that opens or closes is
    #[arg(long, value_name = "SECONDS")]
    tcp_transitory_timeout: Option<u32>,
    /// Seconds after which an idle UDP flow is
    #[arg(long, value_name = "SECONDS")]
    udp_timeout: Option<u32>,
    /// What a packet gets that belongs to no flow
    #[arg(long, value_enum, value_name = "WHAT")]
    no_flow: Option<NoFlowArgument>,
    /// How many flows each endpoint may have at the same time; 0 for no limit
    #[arg(long, value_name = "N")]
    connection_limit: Option<u32>,
    /// How many flows each endpoint may open a second; 0 for no limit
    #[arg(long, value_name = "N")]
    new_connection_rate: Option<u32>,
    /// How many packets a second each endpoint may send, and be sent; 0 for no limit
    #[arg(long, value_name = "N")]
    packet_rate: Option<u32>,
    /// How many bits a second each endpoint may send, and be sent; 0 for no limit
    #[arg(long, value_name = "N")]
    bit_rate: Option<u64>,
    #[command(flatten)]
    health: HealthArguments,
    #[command(flatten)]
    labels: LabelArguments,
}

/// How backends are checked.
#[derive(Debug, Args)]
struct HealthArguments {
    /// What backends are asked, to know whether they are well
    #[arg(long, value_enum, value_name = "WHAT")]
    health_check: Option<CheckArgument>,
    /// The backends' port that is asked; 0 for the resource's first
    #[arg(long, value_name = "PORT")]
    health_port: Option<u16>,
    /// Seconds between two checks
    #[arg(long, value_name = "SECONDS")]
    health_interval: Option<u32>,
    /// Seconds within which the answer must come
    #[arg(long, value_name = "SECONDS")]
    health_timeout: Option<u32>,
    /// Checks in a row that make a backend healthy
    #[arg(long, value_name = "N")]
    healthy_threshold: Option<u32>,
    /// Failed checks in a row that make it unhealthy
    #[arg(long, value_name = "N")]
    unhealthy_threshold: Option<u32>,
    /// What is asked for by HTTP
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// What the answer must be: a status code, or a range as 200-399
    #[arg(long, value_name = "STATUS")]
    health_status: Option<StatusRange>,
    /// What happens to an unhealthy backend's flows
    #[arg(long, value_enum, value_name = "WHAT")]
    unhealthy_flows: Option<UnhealthyFlowsArgument>,
}

impl HealthArguments {
    /// Lays what was given over a service's health check.
    fn apply(&self, health: &mut HealthCheck) {
        fn set<T>(field: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *field = given;
            }
        }
        let check = self.health_check.map(|check| match check {
            CheckArgument::None => Check::None,
            CheckArgument::Tcp => Check::Tcp,
            CheckArgument::Http => Check::Http,
            CheckArgument::Https => Check::Https,
        });
        set(&mut health.check, check);
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
        let flows = self.unhealthy_flows.map(|what| match what {
            UnhealthyFlowsArgument::Keep => UnhealthyFlows::Keep,
            UnhealthyFlowsArgument::Reset => UnhealthyFlows::Reset,
        });
        set(&mut health.unhealthy_flows, flows);
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CheckArgument {
    None,
    Tcp,
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnhealthyFlowsArgument {
    Keep,
    Reset,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NoFlowArgument {
    Reset,
    Drop,
}

/// A limit as it was given: 0 is none.
fn limit<T: Copy + Default + PartialEq>(given: Option<T>, there: Option<T>) -> Option<T> {
    given.map_or(there, |given| {
        Some(given).filter(|given| *given != T::default())
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NoBackendArgument {
    Reset,
    Drop,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SessionAffinityArgument {
    None,
    ClientAddress,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BackendCommand {
    /// Add a backend, or change its weight
    Add(BackendArguments),
    /// Give a backend no new flows; those it has go on
    Drain(BackendArguments),
    /// Remove a backend; its flows are reset
    Remove(BackendArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BackendArguments {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    service: Reference,
    /// The backend: ADDRESS[,weight=N]
    #[arg(value_name = "ADDRESS")]
    backend: Backend,
    /// The resource, if it is not the default one
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
}

fn tenants(text: &str) -> Result<TenantSet, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    TenantSet::try_from(names.map(str::to_owned).collect::<Vec<_>>())
}

impl SettingsArguments {
    /// Lays what was given over a service's fields.
    fn apply(&self, spec: &mut ServiceSpec) {
        if let Some(set) = &self.visibility {
            spec.visibility = set.clone();
        }
        if let Some(set) = &self.auto_approval {
            spec.auto_approval = set.clone();
        }
        if let Some(set) = &self.denied {
            spec.denied = set.clone();
        }
        spec.max_connections_per_tenant = self
            .max_connections_per_tenant
            .or(spec.max_connections_per_tenant);
        if let Some(what) = self.no_backend {
            spec.no_backend = match what {
                NoBackendArgument::Reset => NoBackend::Reset,
                NoBackendArgument::Drop => NoBackend::Drop,
            };
        }
        if let Some(what) = self.session_affinity {
            spec.session_affinity = match what {
                SessionAffinityArgument::None => SessionAffinity::None,
                SessionAffinityArgument::ClientAddress => SessionAffinity::ClientAddress,
            };
        }
        if let Some(what) = self.no_flow {
            spec.no_flow = match what {
                NoFlowArgument::Reset => NoFlow::Reset,
                NoFlowArgument::Drop => NoFlow::Drop,
            };
        }
        spec.connection_limit = limit(self.connection_limit, spec.connection_limit);
        spec.new_connection_rate = limit(self.new_connection_rate, spec.new_connection_rate);
        spec.packet_rate = limit(self.packet_rate, spec.packet_rate);
        spec.bit_rate = limit(self.bit_rate, spec.bit_rate);
        self.health.apply(&mut spec.health_check);
        let timeouts = &mut spec.timeouts;
        timeouts.tcp_established = self
            .tcp_established_timeout
            .unwrap_or(timeouts.tcp_established);
        timeouts.tcp_transitory = self
            .tcp_transitory_timeout
            .unwrap_or(timeouts.tcp_transitory);
        timeouts.udp = self.udp_timeout.unwrap_or(timeouts.udp);
    }
}

pub(in crate::cli) async fn run(client: &Client, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(client, arguments).await,
        Command::Update(arguments) => {
            let settings = &arguments.settings;
            let service = change(
                client,
                &arguments.service,
                settings.labels.clone().labels(),
                |spec| {
                    settings.apply(spec);
                    if !arguments.nat_addresses.is_empty() {
                        spec.nat_addresses.clone_from(&arguments.nat_addresses);
                    }
                    Ok(())
                },
            );
            client.show(&service.await?, details)
        }
        Command::Backend(command) => {
            let (arguments, act): (_, fn(&mut Resource, Backend) -> Result<()>) = match command {
                BackendCommand::Add(arguments) => (arguments, add),
                BackendCommand::Drain(arguments) => (arguments, drain),
                BackendCommand::Remove(arguments) => (arguments, remove),
            };
            let name = arguments.resource.unwrap_or_else(default_resource);
            let service = change(client, &arguments.service, None, |spec| {
                let mut resources = spec.resources.iter_mut();
                let resource = resources
                    .find(|resource| resource.name == name)
                    .with_context(|| format!("the service has no resource {name}"))?;
                act(resource, arguments.backend)
            });
            client.show(&service.await?, details)
        }
        Command::List { tenant } => {
            let services: Vec<ServiceView> = client.list_owned(tenant, "services").await?;
            client.show(&services, |services| {
                let rows = services.iter().map(|service| {
                    let backends = &service.status.backends;
                    let reachable = backends.iter().filter(|backend| backend.reachable).count();
                    vec![
                        service.reference(),
                        service.spec.network.to_string(),
                        format!("{reachable}/{}", backends.len()),
                        connections(service),
                        service.status.alias.clone(),
                    ]
                });
                Table::Rows(
                    vec!["SERVICE", "NETWORK", "BACKENDS", "CONNECTIONS", "ALIAS"],
                    rows.collect(),
                )
            })
        }
        Command::Show { service } => {
            let service: ServiceView = client.get(&path("services", &service)).await?;
            client.show(&service, details)
        }
        Command::Delete { service, force } => {
            let path = format!("{}?force={force}", path("services", &service));
            client.delete(&path, &format!("service {service}")).await
        }
    }
}

async fn create(client: &Client, arguments: Create) -> Result<()> {
    // A network without a slash is in the same tenant; with one it must say so.
    let network = match arguments.network.parse::<Reference>() {
        Ok(reference) if reference.tenant == arguments.service.tenant => reference.name,
        Ok(reference) => bail!(
            "network {reference} belongs to another tenant than service {}",
            arguments.service
        ),
        Err(_) => arguments.network.parse()?,
    };
    let mut spec = ServiceSpec {
        network,
        resources: vec![Resource {
            name: arguments.resource.unwrap_or_else(default_resource),
            ports: arguments.ports,
            backends: arguments.backends,
        }],
        nat_addresses: arguments.nat_addresses,
        visibility: TenantSet::None,
        auto_approval: TenantSet::None,
        denied: TenantSet::None,
        max_connections_per_tenant: None,
        timeouts: Default::default(),
        no_backend: NoBackend::default(),
        session_affinity: SessionAffinity::default(),
        no_flow: NoFlow::default(),
        connection_limit: None,
        new_connection_rate: None,
        packet_rate: None,
        bit_rate: None,
        health_check: HealthCheck::default(),
    };
    arguments.settings.apply(&mut spec);
    let request = ServiceRequest {
        name: Some(arguments.service.name),
        version: None,
        labels: arguments.settings.labels.labels(),
        spec,
    };
    let path = format!("/v1/tenants/{}/services", arguments.service.tenant);
    let service: ServiceView = client.post(&path, &request).await?;
    client.show(&service, details)
}

/// Reads a service, changes it, and writes it back, if nobody else did meanwhile.
async fn change(
    client: &Client,
    service: &Reference,
    labels: Option<crate::model::record::Labels>,
    edit: impl FnOnce(&mut ServiceSpec) -> Result<()>,
) -> Result<ServiceView> {
    let path = path("services", service);
    let old: ServiceView = client.get(&path).await?;
    let mut spec = old.spec;
    edit(&mut spec)?;
    let request = ServiceRequest {
        name: None,
        version: Some(old.meta.version),
        labels,
        spec,
    };
    client.put(&path, &request).await
}

fn find(resource: &mut Resource, address: IpAddr) -> Option<&mut Backend> {
    resource
        .backends
        .iter_mut()
        .find(|backend| backend.address == address)
}

fn add(resource: &mut Resource, backend: Backend) -> Result<()> {
    match find(resource, backend.address) {
        Some(there) => *there = backend,
        None => resource.backends.push(backend),
    }
    Ok(())
}

fn drain(resource: &mut Resource, backend: Backend) -> Result<()> {
    let there = find(resource, backend.address)
        .with_context(|| format!("the service has no backend {}", backend.address))?;
    there.drain = true;
    Ok(())
}

fn remove(resource: &mut Resource, backend: Backend) -> Result<()> {
    let before = resource.backends.len();
    resource
        .backends
        .retain(|there| there.address != backend.address);
    if resource.backends.len() == before {
        bail!("the service has no backend {}", backend.address);
    }
    Ok(())
}

/// How many connections there are in each state, on one line.
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

/// What each endpoint may use, on one line.
fn limits(limits: ConnectionLimits) -> String {
    let ConnectionLimits {
        connection_limit,
        new_connection_rate,
        packet_rate,
        bit_rate,
    } = limits;
    let parts = [
        connection_limit.map(|most| format!("{most} flows")),
        new_connection_rate.map(|most| format!("{most} new ones/s")),
        packet_rate.map(|most| format!("{most} packets/s")),
        bit_rate.map(|most| format!("{most} bit/s")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "no limits".to_owned()
    } else {
        format!("at most {}", parts.join(", "))
    }
}

/// How backends are checked, on one line.
fn health(check: &HealthCheck) -> String {
    let port = check.port.map(|port| format!(" on port {port}"));
    let port = port.unwrap_or_default();
    let what = match check.check {
        Check::None => return "none: who answers ARP or neighbour discovery is well".to_owned(),
        Check::Tcp => format!("TCP{port}"),
        Check::Http => format!("HTTP{port} {} -> {}", check.path, check.expected_status),
        Check::Https => format!("HTTPS{port} {} -> {}", check.path, check.expected_status),
    };
    format!("{what}, every {} s", check.interval)
}

fn details(service: &ServiceView) -> Table {
    let spec = &service.spec;
    let timeouts = spec.timeouts;
    let fields = Table::Fields(vec![
        ("service", service.reference()),
        ("alias", service.status.alias.clone()),
        ("network", spec.network.to_string()),
        ("source NAT", joined(&spec.nat_addresses)),
        (
            "visible to",
            if spec.visibility == TenantSet::None {
                "nobody else".to_owned()
            } else {
                spec.visibility.to_string()
            },
        ),
        ("auto-approval", spec.auto_approval.to_string()),
        ("denied", spec.denied.to_string()),
        (
            "per tenant",
            spec.max_connections_per_tenant
                .map(|most| format!("at most {most} connections"))
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
        ("labels", shown(&service.meta.labels)),
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
                    status.problem.as_deref().unwrap_or("not looked at yet")
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
        let columns = vec!["SOURCE NAT", "FLOWS", "PORTS USED", "FREE"];
        tables.push(Table::Rows(columns, nat));
    }
    Table::Several(tables)
}
