//! Networks as users see them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::controller::Controller,
    api::view::view,
    bpf::loader::AttachMode,
    compile::network::is_isolated,
    host::status::AttachmentState,
    model::{
        Meta, Name, Network, Record, Reference, address::AddressRange, network::Attachment, schema,
    },
};

/// A network's fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkSpec {
    /// Where the gateway meets it.
    pub attachments: Vec<Attachment>,
    /// As set; see the status for what is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// As set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What addresses its hosts have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Prefix>)]
    pub prefixes: Vec<IpNet>,
    /// Its routers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::IpAddress>)]
    pub routers: Vec<IpAddr>,
    /// Where endpoints get their addresses from that are created without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<AddressRange>,
}

/// A network's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// Whether what is for no endpoint is dropped.
    pub isolated: bool,
    /// How its attachments are.
    pub attachments: Vec<AttachmentStatus>,
}

/// How an attachment is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    /// What the agent can't see to itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

view! {
    /// A network.
    NetworkView: NetworkSpec, NetworkStatus
}

/// Shows a network.
#[must_use]
pub fn network(
    controller: &Controller,
    reference: &Reference,
    record: &Record<Network>,
) -> NetworkView {
    let network = &record.object;
    let nothing = AttachmentState::default();
    let attachments = network
        .attachments
        .iter()
        .map(|Attachment { interface }| {
            let state = controller
                .host_status()
                .attachments
                .get(interface)
                .unwrap_or(&nothing);
            attachment(interface, state)
        })
        .collect();
    NetworkView {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: NetworkSpec {
            attachments: network.attachments.clone(),
            isolated: network.isolated,
            mtu: network.mtu,
            prefixes: network.prefixes.clone(),
            routers: network.routers.clone(),
            pool: network.pool.clone(),
        },
        status: NetworkStatus {
            isolated: is_isolated(controller.state(), reference, network),
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
        notes: state.notes.clone(),
    }
}
