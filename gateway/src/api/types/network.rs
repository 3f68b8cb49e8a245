//! Wire types of networks.

use std::net::IpAddr;

use ipnet::IpNet;
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
}

/// Status of an attachment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AttachmentStatus {
    /// Name of the interface.
    pub interface: String,
    /// `up`, `down` or `missing`.
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
