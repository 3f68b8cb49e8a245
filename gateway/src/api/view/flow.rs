//! Flows as the API shows them.

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

/// A TCP or UDP flow.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// The endpoint; absent if it was deleted.
    pub endpoint: Option<Reference>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port of the client in the consumer's network.
    #[schema(value_type = schema::SocketAddress)]
    pub client: SocketAddr,
    /// Address and port of the endpoint.
    #[schema(value_type = schema::SocketAddress)]
    pub destination: SocketAddr,
    /// Source address and port in the provider's network (SNAT); visible to the provider only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub nat: Option<SocketAddr>,
    /// Address and port of the backend; visible to the provider only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub backend: Option<SocketAddr>,
    /// TCP state; for UDP `open` or `unanswered`.
    pub state: String,
    /// True if a newer flow may evict it (half-open flows).
    pub evictable: bool,
    /// Seconds since the flow was opened.
    pub age: u64,
    /// Seconds since the last packet.
    pub idle: u64,
}

/// Returns the view of a flow.
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
