//! Wire types of networks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::types::view,
    model::{Meta, Name, address::AddressRange, network::Attachment, schema},
};

/// A network's fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkSpec {
    /// Interfaces of the host that are connected to the network.
    pub attachments: Vec<Attachment>,
    /// Isolation as configured; `status` has the effective value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// MTU as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Prefixes of the network's hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Prefix>)]
    pub prefixes: Vec<IpNet>,
    /// Routers of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::IpAddress>)]
    pub routers: Vec<IpAddr>,
    /// Addresses for endpoints that are created without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<AddressRange>,
}

/// A network's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// True if packets to addresses of no endpoint are dropped.
    pub isolated: bool,
    /// Status of each attachment.
    pub attachments: Vec<AttachmentStatus>,
    /// SNAT addresses that no service has any more, but that open flows still use: the gateway answers for them until
    /// the last flow ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining_addresses: Vec<DrainingAddress>,
}

/// SNAT address that no service has any more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DrainingAddress {
    /// The address.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// Open flows that use it.
    pub flows: u64,
}

/// Status of an attachment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AttachmentStatus {
    /// Name of the interface.
    pub interface: String,
    /// `up`, `no_carrier`, `down` or `missing`.
    pub state: String,
    /// Index of the interface in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// MAC address of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU of the interface, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// XDP mode of the attached program: `native` or `generic`; absent if none is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<String>,
    /// Packets that the interface has received since it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_packets: Option<u64>,
    /// Last time at which the interface received packets, to a second; absent if it received none since
    /// `watched_since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_received_at: Option<Timestamp>,
    /// Time since which the gateway watches the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub watched_since: Option<Timestamp>,
    /// Packets that arrived here and were dropped or rejected, by drop reason, and frames that the interface did not
    /// take (`transmit_failed`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
    /// Problems of the interface, each with its remedy.
    pub problems: Vec<String>,
    /// Advice on settings that the agent can't make by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

view! {
    /// A network.
    NetworkView: NetworkSpec, NetworkStatus
}
