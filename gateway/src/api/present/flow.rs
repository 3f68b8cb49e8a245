//! Views of flows.

use gateway_common::{flow::Table, packet::protocol};

use crate::{
    agent::controller::{Controller, ListedFlow},
    api::types::FlowView,
    bpf::maps,
    compile::flow_expiry::ticks_to_seconds,
    model::{Principal, service::Protocol},
};

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
