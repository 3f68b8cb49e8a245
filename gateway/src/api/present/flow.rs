//! Views of flows.

use gateway_common::{
    flow::{PlaceState, TcpState},
    packet::protocol,
};

use crate::{
    agent::{controller::Controller, flow_list::ListedFlow},
    api::types::FlowView,
    bpf::maps,
    compile::flow_expiry::ticks_to_seconds,
    model::{Principal, service::Protocol},
};

/// Returns the view of a flow.
#[must_use]
pub fn flow(controller: &Controller, caller: &Principal, found: &ListedFlow) -> FlowView {
    let endpoint = controller.state().endpoint_by_link_id(found.link_id);
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
            Some(_) if found.state == PlaceState::Closed => "closed",
            Some(TcpState::Closed) => "closing",
            Some(state) => state.name(),
            None if found.answered => "open",
            None => "unanswered",
        }
        .to_owned(),
        evictable: matches!(found.state, PlaceState::HalfOpen | PlaceState::Closed),
        age: ticks_to_seconds(now.since(found.created)),
        idle: ticks_to_seconds(now.since(found.last_seen)),
    }
}
