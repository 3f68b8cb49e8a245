//! Next hops of flows.
//!
//! Packets to the service go to the backend's next hop, as the agent knows it now. Packets to the consumer go back to
//! the neighbour that the flow came from. So the gateway needs no route into a consumer's network, and reaches clients
//! behind a router like clients on the link.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, Flow, FlowRef},
    maps::{Connection, Egress},
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
    /// Network that the neighbour is in.
    pub(crate) network: u32,
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
        let connection = env
            .connection(entry.connection_slot())
            .ok_or(NoNextHop::Unreachable)?;
        return Ok(consumer_next_hop(entry, &connection));
    }
    match env.backend(entry.backend_slot.into()) {
        Some(backend) if entry.is_of_backend(backend.generation) => {
            if backend.reachable == 0 {
                return Err(NoNextHop::Unreachable);
            }
            Ok(NextHop {
                egress_slot: backend.egress_slot,
                mac: backend.mac,
                network: backend.network,
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
            Exit::reject(DropReason::BackendRemoved, entry.connection_slot())
        }
        NoNextHop::Unreachable => Exit::drop(DropReason::NoBackend, entry.connection_slot()),
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

/// Returns the next hop of an established flow of the connection, or nothing if its backend was removed or is
/// unreachable. A reply of a removed backend has no next hop either.
#[inline(always)]
pub(crate) fn established_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
    connection: &Connection,
) -> Option<NextHop> {
    let entry = flow.entry();
    if entry.direction() == Direction::ToConsumer {
        let backend = env.backend(entry.backend_slot.into())?;
        let is_removed = !entry.is_of_backend(backend.generation);
        return (!is_removed).then(|| consumer_next_hop(entry, connection));
    }
    reachable_next_hop(env, flow)
}

/// Returns the next hop of packets to the consumer: the neighbour that the first packet came from.
#[inline(always)]
const fn consumer_next_hop<F: Family>(entry: &Flow<F>, connection: &Connection) -> NextHop {
    NextHop {
        egress_slot: entry.egress_slot(),
        mac: entry.consumer_mac(),
        network: connection.network,
    }
}

/// Returns the egress towards a next hop if it belongs to the next hop's network. The slot may have been given to an
/// interface of another network since the flow was opened.
#[inline(always)]
pub(crate) fn lookup_egress<E: Platform>(env: &E, next_hop: NextHop) -> Option<Egress> {
    env.egress(next_hop.egress_slot)
        .filter(|egress| egress.network == next_hop.network)
}
