//! Services: the provider's side of private links.

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

/// Answer to a client when no backend can take its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoBackendAction {
    /// Send a TCP reset, or an ICMP error for UDP.
    #[default]
    Reset,
    /// Drop the packet silently.
    Drop,
}

/// Answer to a packet that matches no flow and can't open one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnmatchedPacketAction {
    /// Send a TCP reset, or an ICMP error for UDP.
    #[default]
    Reset,
    /// Drop the packet silently.
    Drop,
}

/// Assignment of a client's flows to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionAffinity {
    /// Balance each flow independently.
    #[default]
    None,
    /// Send all flows of a client address to one backend, as long as the set of backends does not change.
    ClientAddress,
}

/// Idle timeouts of flows, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Timeout of an established TCP connection (RFC 5382, REQ-5).
    pub tcp_established: u32,
    /// Timeout of a TCP connection that is half-open, closing or reset (RFC 5382, REQ-5).
    pub tcp_transitory: u32,
    /// Timeout of a UDP flow (RFC 4787, REQ-5).
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
    /// Maximum of each timeout: one week.
    const MAX_SECONDS: u32 = 604_800;
    /// Minimum of each timeout. The data path's clock has a resolution of about one second.
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

/// Request to create or change a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// Name of the service. Unset in a request to change one, whose path has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Version of the service that the change applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Settings of the provider.
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

/// The fields of a [`ServiceRequest`] that every request has.
#[derive(ToSchema)]
#[expect(dead_code, reason = "exists for its schema")]
struct ServiceRequestCommonFields {
    /// Name of the service. Unset in a request to change one, whose path has the name.
    name: Option<Name>,
    /// Version of the service that the change applies to.
    version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[schema(value_type = Option<schema::Labels>)]
    labels: Option<Labels>,
}

// The derived schema would allow other fields.
impl PartialSchema for ServiceRequest {
    fn schema() -> RefOr<Schema> {
        let parts = [ServiceRequestCommonFields::schema(), ServiceSpec::schema()];
        schema::merged(parts, "Request to create or change a service.")
    }
}

impl ToSchema for ServiceRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ServiceRequestCommonFields::schemas(schemas);
        ServiceSpec::schemas(schemas);
    }
}

/// Settings of a service that its provider chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSpec {
    /// Network of the provider.
    pub network: Name,
    /// Resources that endpoints can be bound to.
    #[serde(deserialize_with = "strict::objects")]
    #[schema(max_items = 256)]
    pub resources: Vec<Resource>,
    /// SNAT addresses: the source addresses that consumers' flows have in the provider's network.
    #[schema(max_items = 1024)]
    pub nat_addresses: Vec<AddressRange>,
    /// Tenants that can see the service.
    #[serde(default)]
    pub visibility: TenantSet,
    /// Tenants whose connections are approved automatically.
    #[serde(default)]
    pub auto_approval: TenantSet,
    /// Tenants that can neither see the service nor be approved automatically, even if another list names them.
    #[serde(default)]
    pub denied: TenantSet,
    /// Maximum number of connections of one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_tenant: Option<u32>,
    /// Idle timeouts of flows.
    #[serde(default, deserialize_with = "strict::object")]
    pub timeouts: Timeouts,
    /// Answer to a client when no backend can take its flow.
    #[serde(default)]
    pub no_backend_action: NoBackendAction,
    /// Assignment of a client's flows to backends.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Answer to a packet that matches no flow and can't open one.
    #[serde(default)]
    pub unmatched_packet_action: UnmatchedPacketAction,
    /// Maximum number of concurrent flows of each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<u32>,
    /// Maximum number of new flows a second of each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connection_rate: Option<u32>,
    /// Maximum number of packets a second of each connection, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_rate: Option<u32>,
    /// Maximum bits a second of IP packets of each connection, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_rate: Option<u64>,
    /// Health check of the backends.
    #[serde(
        default,
        deserialize_with = "strict::object",
        skip_serializing_if = "HealthCheck::is_default"
    )]
    pub health_check: HealthCheck,
}

/// Stored service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Settings of the provider.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Alias, `NAME.RANDOM.DOMAIN`. Generated when the service is created.
    pub alias: String,
    /// Identifier of the service in the data path.
    pub number: u32,
    /// Identifiers of the resources in the data path.
    pub resource_numbers: BTreeMap<Name, u32>,
}

/// Maximum number of SNAT addresses of a service.
pub const MAX_NAT_ADDRESSES: u64 = 1_024;
/// Maximum number of backends of a resource.
pub const MAX_BACKENDS: usize = 256;
const MAX_RESOURCES: usize = 256;
const MAX_PORTS: usize = 1_024;

impl ServiceSpec {
    /// Returns the resource with the name.
    #[must_use]
    pub fn resource(&self, name: &Name) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| resource.name == *name)
    }

    /// Returns true if the service has IPv6 addresses for SNAT.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        let mut ranges = self.nat_addresses.iter();
        ranges.any(|range| range.ends().0.is_ipv6())
    }

    /// Returns the limits of each connection.
    #[must_use]
    pub const fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connection_limit: self.connection_limit,
            new_connection_rate: self.new_connection_rate,
            packet_rate: self.packet_rate,
            bit_rate: self.bit_rate,
        }
    }

    /// Returns true if the tenant can see the service.
    #[must_use]
    pub fn is_visible_to(&self, tenant: &Name) -> bool {
        self.visibility.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Returns true if the tenant's connections are approved automatically.
    #[must_use]
    pub fn auto_approves(&self, tenant: &Name) -> bool {
        self.auto_approval.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Checks the fields that do not depend on other objects.
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

    /// Refuses lists that are too long. Requests must pass this check before [`Self::check`], which compares entries
    /// of lists with one another. Stored services are not checked for size, since the store of an earlier program may
    /// have larger ones.
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
                 or create several services",
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
        // Keyed by the last address. An overlapping range is the first one that ends at or after the start of this one.
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
