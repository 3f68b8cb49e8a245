//! Flows as users see them.

use std::net::SocketAddr;

use gateway_common::{flow::Table, packet::protocol};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{core::Core, flows::Found},
    dataplane::{expiry::seconds, maps},
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
pub fn flow(core: &Core, caller: &Principal, found: &Found) -> FlowView {
    let link = core.contents().links.get(&found.link);
    let endpoint = link
        .filter(|link| link.generation == found.generation)
        .and_then(|link| core.state.endpoint_of_link(link.id));
    let service = endpoint.and_then(|endpoint| core.state.endpoints.get(endpoint));
    let service = service.map(|record| &record.object.service_identity.reference);
    let serves = match service {
        Some(service) => caller.sees(&service.tenant),
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
        evictable: found.table == Table::Embryonic,
        age: seconds(now.since(found.created)),
        idle: seconds(now.since(found.last_seen)),
    }
}
