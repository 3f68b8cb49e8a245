//! Next hops of flows.
//!
//! Packets to the service go to the backend's next hop, as the agent knows it now. Packets to the consumer go back to
//! the neighbour that the flow came from. So the gateway needs no route into a consumer's network, and reaches clients
//! behind a router like clients on the link.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, Flow, FlowRef},
    maps::Egress,
    packet::PackedMac,
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// The neighbour that a packet is sent to, and the interface that leads there.
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    /// Egress slot.
    pub(crate) egress_slot: u32,
    /// MAC address of the neighbour.
    pub(crate) mac: PackedMac,
}

/// Cause of a missing next hop.
enum NoNextHop {
    /// The backend left its slot after the flow was checked.
    BackendRemoved,
    /// The backend's MAC address or egress is unknown.
    Unreachable,
}

/// Returns the next hop of a flow that has not [ended](crate::pipeline::conntrack::established::end_reason).
#[inline(always)]
fn find_next_hop<F: Family, E: Platform>(env: &E, entry: &Flow<F>) -> Result<NextHop, NoNextHop> {
    if entry.direction() == Direction::ToConsumer {
        return Ok(consumer_next_hop(entry));
    }
    let (slot, generation) = entry.backend();
    match env.backend(slot) {
        Some(backend) if backend.generation == generation => {
            if backend.reachable == 0 {
                return Err(NoNextHop::Unreachable);
            }
            Ok(NextHop {
                egress_slot: backend.egress_slot,
                mac: backend.mac,
            })
        }
        _ => Err(NoNextHop::BackendRemoved),
    }
}

/// Returns the next hop of a packet of a flow that has not ended.
#[inline(always)]
pub(crate) fn lookup_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
) -> StageResult<NextHop> {
    let entry = flow.entry();
    find_next_hop(env, entry).map_err(|error| match error {
        NoNextHop::BackendRemoved => {
            Exit::reject(DropReason::BackendRemoved, entry.connection_slot)
        }
        NoNextHop::Unreachable => Exit::drop(DropReason::NoBackend, entry.connection_slot),
    })
}

/// Returns the next hop of an ICMP error about a packet of a flow that has not ended.
#[inline(always)]
pub(crate) fn reachable_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
) -> Option<NextHop> {
    find_next_hop(env, flow.entry()).ok()
}

/// Returns the next hop of an established flow, or nothing if its backend was removed or is unreachable. A reply
/// of a removed backend has no next hop either.
#[inline(always)]
pub(crate) fn established_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
) -> Option<NextHop> {
    let entry = flow.entry();
    if entry.direction() == Direction::ToConsumer {
        let (slot, generation) = entry.reply_backend();
        let backend = env.backend(slot)?;
        return (backend.generation == generation).then(|| consumer_next_hop(entry));
    }
    reachable_next_hop(env, flow)
}

/// Returns the next hop of packets to the consumer: the neighbour that the first packet came from.
#[inline(always)]
fn consumer_next_hop<F: Family>(entry: &Flow<F>) -> NextHop {
    NextHop {
        egress_slot: entry.egress_slot.into(),
        mac: entry.consumer_mac(),
    }
}

/// Returns the egress towards a flow's next hop if it belongs to the flow's network. The slot may have been given to
/// an interface of another network since the flow was opened.
#[inline(always)]
pub(crate) fn lookup_egress<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
    next_hop: NextHop,
) -> Option<Egress> {
    env.egress(next_hop.egress_slot)
        .filter(|egress| egress.network == flow.entry().network)
}
