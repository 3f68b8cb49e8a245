//! Objects as users see them: what they set, and in `status` what the gateway observed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{IpAddress, flow::Table, packet::protocol, stages::SOURCE_PORTS};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    agent::{
        core::Core, detection::Standing, duties::is_scarce, flows::Found, host::AttachmentState,
    },
    dataplane::{compile::is_isolated, expiry::seconds, maps, program::AttachMode},
    model::{
        Connection, ConnectionState, Endpoint, Meta, Name, Network, Record, Reference, Service,
        State, Tenant,
        network::Attachment,
        service::{Protocol, ServiceSpec},
        tenant::Quotas,
    },
};

/// An object with its status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View<Spec, Status> {
    /// Identity and history.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner; none for a tenant itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// What its user set.
    #[serde(flatten)]
    pub spec: Spec,
    /// What the gateway observed.
    pub status: Status,
}

impl<Spec, Status> View<Spec, Status> {
    /// The object's reference, or its name for a tenant.
    pub fn reference(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("{tenant}/{}", self.meta.name),
            None => self.meta.name.to_string(),
        }
    }
}

/// A tenant's fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantSpec {
    /// Its quotas.
    pub quotas: Quotas,
}

/// A tenant's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantStatus {
    /// How much it has.
    pub usage: Usage,
}

/// How many objects a tenant has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Networks.
    pub networks: usize,
    /// Services.
    pub services: usize,
    /// Endpoints.
    pub endpoints: usize,
}

/// A tenant.
pub type TenantView = View<TenantSpec, TenantStatus>;

/// Shows a tenant.
#[must_use]
pub fn tenant(state: &State, record: &Record<Tenant>) -> TenantView {
    let name = &record.meta.name;
    View {
        meta: record.meta.clone(),
        tenant: None,
        spec: TenantSpec {
            quotas: record.object.quotas,
        },
        status: TenantStatus {
            usage: Usage {
                networks: State::owned(&state.networks, name).count(),
                services: State::owned(&state.services, name).count(),
                endpoints: State::owned(&state.endpoints, name).count(),
            },
        },
    }
}

/// A network's fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Where the gateway meets it.
    pub attachments: Vec<Attachment>,
    /// As set; see the status for what is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// As set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// A network's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Whether what is for no endpoint is dropped.
    pub isolated: bool,
    /// How its attachments are.
    pub attachments: Vec<AttachmentStatus>,
}

/// How an attachment is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// The interface's name.
    pub interface: String,
    /// `up`, `down` or `missing`.
    pub state: String,
    /// The kernel's number for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The largest IP packet that it takes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How the program is attached: `native` or `generic`; none if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<String>,
    /// What is wrong, and what to do about it.
    pub problems: Vec<String>,
}

/// A network.
pub type NetworkView = View<NetworkSpec, NetworkStatus>;

/// Shows a network.
#[must_use]
pub fn network(core: &Core, reference: &Reference, record: &Record<Network>) -> NetworkView {
    let network = &record.object;
    let nothing = AttachmentState::default();
    let attachments = network
        .attachments
        .iter()
        .map(|Attachment { interface }| {
            let state = core.host.attachments.get(interface).unwrap_or(&nothing);
            attachment(interface, state)
        })
        .collect();
    View {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: NetworkSpec {
            attachments: network.attachments.clone(),
            isolated: network.isolated,
            mtu: network.mtu,
        },
        status: NetworkStatus {
            isolated: is_isolated(&core.state, reference, network),
            attachments,
        },
    }
}

fn attachment(interface: &str, state: &AttachmentState) -> AttachmentStatus {
    let link = state.link.as_ref();
    AttachmentStatus {
        interface: interface.to_owned(),
        state: match link {
            None => "missing",
            Some(link) if link.up => "up",
            Some(_) => "down",
        }
        .to_owned(),
        ifindex: link.map(|link| link.ifindex),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        xdp_mode: state.mode.map(|mode| {
            match mode {
                AttachMode::Native => "native",
                AttachMode::Generic => "generic",
            }
            .to_owned()
        }),
        problems: state.problems.clone(),
    }
}

/// A service's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// What consumers can name it by.
    pub alias: String,
    /// How its backends are.
    pub backends: Vec<BackendStatus>,
    /// What its source NAT addresses carry; those that carry nothing left out.
    pub nat_addresses: Vec<NatAddressStatus>,
    /// How many connections are in each state.
    pub connections: BTreeMap<ConnectionState, usize>,
}

/// How a backend is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The resource it serves.
    pub resource: Name,
    /// Its address.
    pub address: IpAddr,
    /// Whether the gateway knows the way to it.
    pub reachable: bool,
    /// Whether it passes its health checks; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Why it is not reachable or not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a source NAT address carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatAddressStatus {
    /// The address.
    pub address: IpAddr,
    /// Flows from it.
    pub flows: u64,
    /// Ports in use towards the server that most of them go to: a port serves once for each server.
    pub ports_used: u64,
    /// Ports that are left towards that server.
    pub ports_free: u64,
    /// Whether so few are left that the service needs more addresses.
    pub scarce: bool,
}

/// A service.
pub type ServiceView = View<ServiceSpec, ServiceStatus>;

/// Shows a service.
#[must_use]
pub fn service(core: &Core, reference: &Reference, record: &Record<Service>) -> ServiceView {
    let spec = &record.object.spec;
    let network = Reference::new(reference.tenant.clone(), spec.network.clone());
    let mut backends = Vec::new();
    for resource in &spec.resources {
        for backend in &resource.backends {
            let key = (network.clone(), backend.address);
            let reachable = core.observed.next_hops.contains_key(&key);
            let checked = (reference.clone(), resource.name.clone(), backend.address);
            let health = core.healths.get(&checked);
            let problem = if reachable {
                health
                    .filter(|health| health.unhealthy)
                    .and_then(|health| health.last_error.clone())
            } else {
                core.host.unreachable.get(&key).cloned()
            };
            backends.push(BackendStatus {
                resource: resource.name.clone(),
                address: backend.address,
                reachable,
                healthy: health.map(|health| !health.unhealthy),
                problem,
            });
        }
    }
    let mut connections = BTreeMap::new();
    for (_, endpoint) in core.state.endpoints_of_service(reference) {
        if endpoint.object.service_identity.uid == record.meta.uid {
            *connections
                .entry(endpoint.object.connection.state)
                .or_default() += 1;
        }
    }
    View {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: spec.clone(),
        status: ServiceStatus {
            alias: record.object.alias.clone(),
            nat_addresses: nat_addresses(core, &network, spec),
            backends,
            connections,
        },
    }
}

/// What the service's source NAT addresses carry.
fn nat_addresses(core: &Core, network: &Reference, spec: &ServiceSpec) -> Vec<NatAddressStatus> {
    let Some(number) = core.state.networks.get(network).map(|n| n.object.number) else {
        return Vec::new();
    };
    let addresses = spec.nat_addresses.iter().flat_map(|range| range.iter());
    addresses
        .filter_map(|address| {
            let used = core.nat_use.get(&(number, IpAddress::from(address)))?;
            Some(NatAddressStatus {
                address,
                flows: used.flows,
                ports_used: used.ports,
                ports_free: u64::from(SOURCE_PORTS).saturating_sub(used.ports),
                scarce: is_scarce(*used),
            })
        })
        .collect()
}

/// A connection, as both sides see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub link_id: u32,
    /// Where it stands.
    pub state: ConnectionState,
    /// What was said with the last decision.
    pub reason: String,
    /// Who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
}

impl From<&Connection> for ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        Self {
            link_id: connection.link_id,
            state: connection.state,
            reason: connection.reason.clone(),
            decided_by: connection.decided_by.clone(),
            decided_at: connection.decided_at,
        }
    }
}

/// An endpoint's fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The consumer's network.
    pub network: Name,
    /// Its private addresses there.
    pub addresses: Vec<IpAddr>,
    /// The service, as its user named it.
    pub service: String,
    /// The resource that it is bound to.
    pub resource: Name,
    /// What the consumer told the provider.
    pub request_message: String,
}

/// An endpoint's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// How it stands with the provider.
    pub connection: ConnectionStatus,
    /// Whether the data path knows the endpoint.
    pub programmed: bool,
    /// How its addresses stand.
    pub addresses: Vec<AddressStatus>,
    /// Flows that it has now.
    pub flows: u64,
    /// What crossed, and what did not.
    pub counters: Counters,
}

/// How an endpoint's address stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// `probing`: it is being found out whether another station has it; `in_use`; `conflict`: another
    /// station has it, so it is not in use; `disputed`: it is in use, and another station claims it.
    pub state: String,
    /// The other station.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
}

/// What was counted for a connection. Bytes are those of the IP packets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counters {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets from the consumer to the service.
    pub packets_to_service: u64,
    /// Their bytes.
    pub bytes_to_service: u64,
    /// Packets from the service to the consumer.
    pub packets_to_consumer: u64,
    /// Their bytes.
    pub bytes_to_consumer: u64,
    /// Packets dropped or reset, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// An endpoint.
pub type EndpointView = View<EndpointSpec, EndpointStatus>;

/// Shows an endpoint.
///
/// # Errors
/// When the counters can't be read.
pub fn endpoint(
    core: &Core,
    reference: &Reference,
    record: &Record<Endpoint>,
) -> anyhow::Result<EndpointView> {
    let endpoint = &record.object;
    let slot = endpoint.connection.slot;
    let counted = core.maps.link_counters(slot)?;
    let drops = core.maps.link_drops(slot)?;
    let link = core.contents().links.get(&slot);
    Ok(View {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: EndpointSpec {
            network: endpoint.network.clone(),
            addresses: endpoint.addresses.clone(),
            service: endpoint.service.clone(),
            resource: endpoint.resource.clone(),
            request_message: endpoint.request_message.clone(),
        },
        status: EndpointStatus {
            connection: ConnectionStatus::from(&endpoint.connection),
            programmed: link.is_some_and(|link| link.id == endpoint.connection.link_id),
            addresses: addresses(core, reference, endpoint),
            flows: core.maps.usage(slot)?.flows,
            counters: Counters {
                flows_opened: counted.flows_opened,
                packets_to_service: counted.packets_to_service,
                bytes_to_service: counted.bytes_to_service,
                packets_to_consumer: counted.packets_to_consumer,
                bytes_to_consumer: counted.bytes_to_consumer,
                drops: drops
                    .into_iter()
                    .map(|(reason, count)| (reason.name().to_owned(), count))
                    .collect(),
            },
        },
    })
}

fn addresses(core: &Core, reference: &Reference, endpoint: &Endpoint) -> Vec<AddressStatus> {
    let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
    let addresses = endpoint.addresses.iter().map(|address| {
        let standing = core.detection.standing(&(network.clone(), *address));
        let (state, station) = match standing {
            None | Some(Standing::Probing) => ("probing", None),
            Some(Standing::Taken) => ("in_use", None),
            Some(Standing::Conflict(station)) => ("conflict", Some(station)),
            Some(Standing::Disputed(station)) => ("disputed", Some(station)),
        };
        AddressStatus {
            address: *address,
            state: state.to_owned(),
            station: station.map(|station| station.to_string()),
        }
    });
    addresses.collect()
}

/// A connection, as the provider sees it under its service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionView {
    /// The endpoint: its tenant and name.
    pub endpoint: Reference,
    /// The endpoint's addresses.
    pub addresses: Vec<IpAddr>,
    /// The resource that it is bound to.
    pub resource: Name,
    /// What the consumer said.
    pub request_message: String,
    /// When it asked.
    pub requested_at: Timestamp,
    /// How it stands.
    #[serde(flatten)]
    pub connection: ConnectionStatus,
}

/// Shows a connection.
#[must_use]
pub fn connection(reference: &Reference, record: &Record<Endpoint>) -> ConnectionView {
    ConnectionView {
        endpoint: reference.clone(),
        addresses: record.object.addresses.clone(),
        resource: record.object.resource.clone(),
        request_message: record.object.request_message.clone(),
        requested_at: record.meta.created_at,
        connection: ConnectionStatus::from(&record.object.connection),
    }
}

/// A flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowView {
    /// The endpoint that it goes through; none if that is gone.
    pub endpoint: Option<Reference>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The consumer's client.
    pub client: SocketAddr,
    /// The endpoint's address and port.
    pub destination: SocketAddr,
    /// Where it appears from in the provider's network.
    pub nat: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// The TCP state; `open` or `unanswered` for UDP.
    pub state: String,
    /// Whether it can be evicted by newer flows of its kind.
    pub evictable: bool,
    /// Seconds since it was opened.
    pub age: u64,
    /// Seconds since its last packet.
    pub idle: u64,
}

/// Shows a flow.
#[must_use]
pub fn flow(core: &Core, found: &Found) -> FlowView {
    let link = core.contents().links.get(&found.link);
    let endpoint = link
        .filter(|link| link.generation == found.generation)
        .and_then(|link| core.state.endpoint_of_link(link.id));
    let now = maps::now();
    FlowView {
        endpoint: endpoint.cloned(),
        protocol: if found.protocol == u32::from(protocol::TCP) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        client: found.client,
        destination: found.destination,
        nat: found.nat,
        backend: found.backend,
        state: match found.tcp_state {
            Some(state) => state.name(),
            None if found.answered => "open",
            None => "unanswered",
        }
        .to_owned(),
        evictable: found.table == Table::Embryonic,
        age: seconds(now.since(found.created)),
        idle: seconds(now.since(found.last_seen)),
    }
}

/// How the gateway is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// The agent's version.
    pub version: String,
    /// Whether the data path holds what it should.
    pub in_step: bool,
    /// The kernel's number for the XDP program.
    pub program_id: u32,
    /// How many objects there are.
    pub objects: Objects,
    /// Flows both sides agreed to.
    pub established_flows: u64,
    /// Flows that are being opened.
    pub embryonic_flows: u64,
    /// What the data path counts.
    pub statistics: BTreeMap<String, u64>,
    /// Packets dropped or reset, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// How many objects there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
pub fn status(core: &Core) -> anyhow::Result<StatusView> {
    let mut problems: Vec<String> = core
        .host
        .attachments
        .values()
        .flat_map(|state| state.problems.clone())
        .collect();
    problems.extend(core.no_room().iter().map(ToString::to_string));
    let mut unreachable: Vec<String> = core
        .host
        .unreachable
        .iter()
        .map(|((network, address), reason)| format!("backend {address} in {network}: {reason}"))
        .collect();
    unreachable.sort();
    problems.extend(unreachable);
    Ok(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        in_step: core.in_step(),
        program_id: core.program.info()?.id,
        objects: Objects {
            tenants: core.state.tenants.len(),
            networks: core.state.networks.len(),
            services: core.state.services.len(),
            endpoints: core.state.endpoints.len(),
        },
        established_flows: core.count_flows(Table::Established)?,
        embryonic_flows: core.count_flows(Table::Embryonic)?,
        statistics: core
            .maps
            .statistics()?
            .into_iter()
            .map(|(statistic, count)| (statistic.name().to_owned(), count))
            .collect(),
        drops: core
            .maps
            .drops()?
            .into_iter()
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        problems,
    })
}
