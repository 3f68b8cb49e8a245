//! Flows as users see them.

use std::net::SocketAddr;

use gateway_common::{flow::Table, packet::protocol};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::controller::{Controller, ListedFlow},
    bpf::maps,
    compile::flow_expiry::ticks_to_seconds,
    model::{Principal, Reference, schema, service::Protocol},
};

/// A flow.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// The endpoint that it goes through; none if that is gone.
    pub endpoint: Option<Reference>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The consumer's client.
    #[schema(value_type = schema::SocketAddress)]
    pub client: SocketAddr,
    /// The endpoint's address and port.
    #[schema(value_type = schema::SocketAddress)]
    pub destination: SocketAddr,
    /// Where it appears from in the provider's network; for those to whom that belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub nat: Option<SocketAddr>,
    /// The backend; for those to whom it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub backend: Option<SocketAddr>,
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
pub fn flow(controller: &Controller, caller: &Principal, found: &ListedFlow) -> FlowView {
    let link = controller
        .map_snapshot()
        .connections
        .get(&found.connection_slot);
    let endpoint = link
        .filter(|link| link.generation == found.generation)
        .and_then(|link| controller.state().endpoint_by_link_id(link.id));
    let service = endpoint.and_then(|endpoint| controller.state().endpoints.get(endpoint));
    let service = service.map(|record| &record.object.service_identity.reference);
    let serves = match service {
        Some(service) => caller.can_see(&service.tenant),
        None => caller.is_operator(),
    };
    let now = maps::now();
    FlowView {
        endpoint: endpoint.cloned(),
        protocol: if found.protocol == protocol::TCP {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        client: found.client,
        destination: found.destination,
        nat: Some(found.nat).filter(|_| serves),
        backend: Some(found.backend).filter(|_| serves),
        state: match found.tcp_state {
            Some(state) => state.name(),
            None if found.answered => "open",
            None => "unanswered",
        }
        .to_owned(),
        evictable: found.table == Table::HalfOpen,
        age: ticks_to_seconds(now.since(found.created)),
        idle: ticks_to_seconds(now.since(found.last_seen)),
    }
}
