//! Next hops of flows.
//!
//! Packets to the service go to the backend's next hop, as the agent knows it now. Packets to the consumer go back to
//! the neighbour that the flow's newest packet came from. So the gateway needs no route into a consumer's network, and reaches clients
//! behind a router like clients on the link.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowRef},
    maps::{Backend, Connection, Egress},
    packet::{PackedMac, protocol},
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

/// Returns the next hop of a flow that has not [ended](crate::pipeline::conntrack::lookup::end_reason), unless its
/// backend has one of these flags.
#[inline(always)]
fn find_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
    unless: u32,
) -> Result<NextHop, NoNextHop> {
    let entry = flow.entry();
    if entry.direction() == Direction::ToConsumer {
        let connection = env
            .connection(entry.connection_slot())
            .ok_or(NoNextHop::Unreachable)?;
        return Ok(consumer_next_hop(flow, &connection));
    }
    match env.backend(entry.backend_slot.into()) {
        Some(backend) if entry.is_of_backend(backend.generation) => {
            if backend.reachable == 0 || backend.flags & unless != 0 {
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
    find_next_hop(env, flow, 0).map_err(|error| match error {
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
    find_next_hop(env, flow, 0).ok()
}

/// Returns the next hop of an established flow of the connection, or nothing if its backend was removed, is unreachable
/// or releases the flow. A reply of a removed backend has no next hop either.
#[inline(always)]
pub(crate) fn established_next_hop<F: Family, E: Platform>(
    env: &E,
    flow: &FlowRef<F>,
    connection: &Connection,
    protocol: u8,
) -> Option<NextHop> {
    let entry = flow.entry();
    if entry.direction() == Direction::ToConsumer {
        let backend = env.backend(entry.backend_slot.into())?;
        let is_removed = !entry.is_of_backend(backend.generation);
        return (!is_removed).then(|| consumer_next_hop(flow, connection));
    }
    let releases = if protocol == protocol::UDP {
        Backend::RELEASES_UDP
    } else {
        0
    };
    find_next_hop(env, flow, releases).ok()
}

/// Returns the next hop of packets to the consumer: the neighbour that the newest packet came from.
#[inline(always)]
fn consumer_next_hop<F: Family>(flow: &FlowRef<F>, connection: &Connection) -> NextHop {
    let path = flow.return_path();
    NextHop {
        egress_slot: path.egress_slot(),
        mac: path.mac(),
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
