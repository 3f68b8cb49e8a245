//! Services: the provider's side.

mod backend;
mod health;
mod limits;
mod port;
mod resource;
mod size;
mod tenants;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

pub use backend::{Backend, MAX_WEIGHT};
pub use health::{HealthCheck, HealthCheckKind, HealthState, StatusRange, UnhealthyFlowAction};
pub use limits::ConnectionLimits;
pub use port::{Port, PortNumber, Protocol};
pub use resource::{Resource, default_resource};
pub use size::service_size;
pub use tenants::TenantSet;

use crate::model::{
    Name, Problem,
    address::{AddressRange, check_hosts},
    limits as size_limits,
    record::Labels,
    schema, strict,
};

/// What a client gets when no backend can take its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoBackendAction {
    /// A TCP reset, at once.
    #[default]
    Reset,
    /// Silence.
    Drop,
}

/// What a packet gets that belongs to no flow and can't open one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnmatchedPacketAction {
    /// A TCP reset, or an ICMP error, at once.
    #[default]
    Reset,
    /// Silence.
    Drop,
}

/// What keeps a client's flows on one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionAffinity {
    /// Nothing: each flow is balanced by itself.
    #[default]
    None,
    /// The client's address: as long as the backends stay the same, so does its backend.
    ClientAddress,
}

/// How long a flow may be idle, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// An open TCP connection (RFC 5382, REQ-5).
    pub tcp_established: u32,
    /// A TCP connection that is opening, closing or reset (RFC 5382, REQ-5).
    pub tcp_transitory: u32,
    /// UDP (RFC 4787, REQ-5).
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7_440,
            tcp_transitory: 240,
            udp: 300,
        }
    }
}

impl Timeouts {
    /// A week: the longest that can be set.
    const MAX_SECONDS: u32 = 604_800;
    /// The shortest: the data path counts time in ticks of about a second.
    pub const MIN_SECONDS: u32 = 5;

    fn check(self) -> Result<(), Problem> {
        for (field, value) in [
            ("timeouts.tcp_established", self.tcp_established),
            ("timeouts.tcp_transitory", self.tcp_transitory),
            ("timeouts.udp", self.udp),
        ] {
            if !(Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&value) {
                return Err(Problem::invalid(
                    field,
                    format!(
                        "{value} seconds is out of range: {} to {}",
                        Self::MIN_SECONDS,
                        Self::MAX_SECONDS
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// What a user says of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// The service's name; in the path when an existing one is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The version that the change was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels; unchanged where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// What the provider decides.
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

/// The fields of a [`ServiceRequest`] that every request has.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
struct ServiceRequestCommonFields {
    /// The service's name; in the path when an existing one is changed.
    name: Option<Name>,
    /// The version that the change was made for.
    version: Option<u64>,
    /// Labels; unchanged where unset.
    #[schema(value_type = Option<schema::Labels>)]
    labels: Option<Labels>,
}

// The derived one would not say that there are no other fields.
impl PartialSchema for ServiceRequest {
    fn schema() -> RefOr<Schema> {
        let parts = [ServiceRequestCommonFields::schema(), ServiceSpec::schema()];
        schema::merged(parts, "What a user says of a service.")
    }
}

impl ToSchema for ServiceRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ServiceRequestCommonFields::schemas(schemas);
        ServiceSpec::schemas(schemas);
    }
}

/// The fields of a service that its provider sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSpec {
    /// The provider's network.
    pub network: Name,
    /// What can be connected to.
    #[serde(deserialize_with = "strict::objects")]
    #[schema(max_items = 256)]
    pub resources: Vec<Resource>,
    /// From where consumers appear in the provider's network.
    #[schema(max_items = 1024)]
    pub nat_addresses: Vec<AddressRange>,
    /// Who may see it.
    #[serde(default)]
    pub visibility: TenantSet,
    /// Whose requests are approved at once.
    #[serde(default)]
    pub auto_approval: TenantSet,
    /// Who may not, whatever the other two say.
    #[serde(default)]
    pub denied: TenantSet,
    /// How many connections one tenant may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_tenant: Option<u32>,
    /// When idle flows end.
    #[serde(default, deserialize_with = "strict::object")]
    pub timeouts: Timeouts,
    /// What a client gets when no backend can take its flow.
    #[serde(default)]
    pub no_backend_action: NoBackendAction,
    /// What keeps a client's flows on one backend.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// What a packet gets that belongs to no flow and can't open one.
    #[serde(default)]
    pub unmatched_packet_action: UnmatchedPacketAction,
    /// Flows that each connection may have at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<u32>,
    /// New flows that it may open a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connection_rate: Option<u32>,
    /// Packets a second, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_rate: Option<u32>,
    /// Bits a second of IP packets, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_rate: Option<u64>,
    /// How backends are checked.
    #[serde(
        default,
        deserialize_with = "strict::object",
        skip_serializing_if = "HealthCheck::is_default"
    )]
    pub health_check: HealthCheck,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What the provider decided.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// The name it can be connected to by, made once: `NAME.RANDOM.DOMAIN`.
    pub alias: String,
    /// What the data path knows the service by.
    pub number: u32,
    /// What the data path knows its resources by.
    pub resource_numbers: BTreeMap<Name, u32>,
}

/// The most addresses that a service's source NAT uses.
pub const MAX_NAT_ADDRESSES: u64 = 1_024;
/// The most backends of a resource.
pub const MAX_BACKENDS: usize = 256;
const MAX_RESOURCES: usize = 256;
const MAX_PORTS: usize = 1_024;

impl ServiceSpec {
    /// The resource of the name.
    #[must_use]
    pub fn resource(&self, name: &Name) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| resource.name == *name)
    }

    /// Whether it has IPv6 addresses for source NAT.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        let mut ranges = self.nat_addresses.iter();
        ranges.any(|range| range.ends().0.is_ipv6())
    }

    /// What each connection may use.
    #[must_use]
    pub const fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connection_limit: self.connection_limit,
            new_connection_rate: self.new_connection_rate,
            packet_rate: self.packet_rate,
            bit_rate: self.bit_rate,
        }
    }

    /// Whether the service exists for the tenant.
    #[must_use]
    pub fn is_visible_to(&self, tenant: &Name) -> bool {
        self.visibility.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Whether the tenant's requests are approved at once.
    #[must_use]
    pub fn auto_approves(&self, tenant: &Name) -> bool {
        self.auto_approval.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Checks the fields that can be judged alone.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.resources.is_empty() || self.resources.len() > MAX_RESOURCES {
            return Err(Problem::invalid(
                "resources",
                format!("a service has 1 to {MAX_RESOURCES} resources"),
            ));
        }
        let mut names = HashSet::new();
        for (index, resource) in self.resources.iter().enumerate() {
            let field = format!("resources[{index}]");
            if !names.insert(&resource.name) {
                return Err(Problem::invalid(
                    format!("{field}.name"),
                    format!("resource {} is named twice", resource.name),
                ));
            }
            resource.check(&field)?;
        }
        self.check_nat_addresses()?;
        self.timeouts.check()?;
        self.limits().check()?;
        self.health_check.check()
    }

    /// Refuses lists that are too long. To be asked before [`Self::check`], which compares their entries with
    /// one another; of what is stored already it is not asked, or an earlier program's store could not be
    /// read.
    pub(crate) fn check_size(&self) -> Result<(), Problem> {
        for (field, set) in [
            ("visibility", &self.visibility),
            ("auto_approval", &self.auto_approval),
            ("denied", &self.denied),
        ] {
            if set.len() > size_limits::MAX_TENANTS {
                let detail = format!("{field} names at most {} tenants", size_limits::MAX_TENANTS);
                return Err(Problem::invalid(field, detail));
            }
        }
        let max = usize::try_from(MAX_NAT_ADDRESSES).unwrap_or(usize::MAX);
        if self.nat_addresses.len() > max {
            let detail = format!("a service has at most {max} source NAT addresses");
            return Err(Problem::invalid("nat_addresses", detail));
        }
        let weight = service_size(self);
        if weight > size_limits::MAX_SERVICE_BYTES {
            let detail = format!(
                "resources and lists of tenants take about {weight} bytes together: use at most {}, \
                 or make several services",
                size_limits::MAX_SERVICE_BYTES
            );
            return Err(Problem::invalid("resources", detail));
        }
        Ok(())
    }

    fn check_nat_addresses(&self) -> Result<(), Problem> {
        if self.nat_addresses.is_empty() {
            return Err(Problem::invalid(
                "nat_addresses",
                "a service needs at least one source NAT address in its network",
            ));
        }
        let counts = self.nat_addresses.iter().map(|range| range.count());
        let count = counts.fold(0, u64::saturating_add);
        if count > MAX_NAT_ADDRESSES {
            return Err(Problem::invalid(
                "nat_addresses",
                format!("{count} source NAT addresses are more than {MAX_NAT_ADDRESSES}"),
            ));
        }
        let backends = self.resources.iter().flat_map(|r| &r.backends);
        let backends: BTreeSet<IpAddr> = backends.map(|backend| backend.address).collect();
        // By the last address: an overlapping range is the first one that ends in this one or later.
        let mut ranges: BTreeMap<IpAddr, AddressRange> = BTreeMap::new();
        for (index, range) in self.nat_addresses.iter().enumerate() {
            let field = format!("nat_addresses[{index}]");
            check_hosts(&field, *range)?;
            let (first, last) = range.ends();
            let next = ranges.range(first..).next();
            if let Some((_, other)) = next.filter(|(_, other)| other.overlaps(*range)) {
                return Err(Problem::invalid(field, format!("{range} overlaps {other}")));
            }
            if let Some(backend) = backends.range(first..=last).next() {
                let detail = format!("{range} holds the backend {backend}");
                return Err(Problem::invalid(field, detail));
            }
            ranges.insert(last, *range);
        }
        let has_source = [false, true].map(|v4| {
            let mut ranges = self.nat_addresses.iter();
            ranges.any(|range| range.ends().0.is_ipv4() == v4)
        });
        for (r, resource) in self.resources.iter().enumerate() {
            for (b, backend) in resource.backends.iter().enumerate() {
                if !has_source[usize::from(backend.address.is_ipv4())] {
                    return Err(Problem::invalid(
                        format!("resources[{r}].backends[{b}].address"),
                        format!(
                            "the service has no source NAT address of the family of backend {}",
                            backend.address
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}
