//! Settings of a service that its provider chooses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Name,
    address::AddressRange,
    service::{
        ConnectionLimits, HealthCheck, NoBackendAction, Resource, SessionAffinity, TenantSet,
        Timeouts, UnmatchedPacketAction,
    },
    strict,
};

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
    /// True if a client's source port below 1,024 gets a source port from 512 to 1,023 (RFC 4787, REQ-3a), as NFS servers
    /// with `secure` exports demand. A client without a free port of these is not connected.
    #[serde(default)]
    pub preserve_privileged_ports: bool,
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
}
