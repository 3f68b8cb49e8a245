//! The look-up of a packet's flow.
//!
//! In generic functions `A` is the family that the packet arrives in, and `T` the family in whose table the flow
//! lies. They are the same, except that NAT46 flows lie in the table of IPv6.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowKey, FlowRef, PlaceState},
    maps::Backend,
    pipeline::{
        conntrack::{calls, half_open, life, tcp},
        ingress::l4::{L4Header, L4Packet},
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Returns the flow that the packet belongs to, and updates its state.
///
/// A packet that may open a flow gets none if its flow is closed or has ended.
#[inline(always)]
pub(crate) fn lookup_flow<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
) -> StageResult<Option<FlowRef<T>>> {
    let Some(mut flow) = calls::lookup(env, key) else {
        return Ok(None);
    };
    // Checked before the state is updated: packets of a flow that has ended don't change it.
    let backend = match check_flow(env, &flow) {
        Ok(backend) => backend,
        Err(reason) => return reject_or_reopen(env, packet, &flow, reason),
    };
    let header = packet.l4_header(env);
    if flow.entry().direction() == Direction::ToService && must_reselect(header, backend) {
        calls::remove(env, &flow);
        return Ok(None);
    }
    if let L4Header::Tcp(segment) = header
        && segment.is_initial_syn()
        && flow.entry().direction() == Direction::ToService
        && !flow.control.is(PlaceState::HalfOpen)
        && calls::is_dead(env, &flow, 0)
    {
        // The entry towards the consumer stays: it tells which sequence numbers the server has seen, and so when the
        // source port may be used again.
        calls::close(env, &mut flow);
        life::remove_entry(env, &mut flow);
        return Ok(None);
    }
    if flow.control.is(PlaceState::HalfOpen) {
        if !half_open::on_packet(env, packet, &header, &mut flow, backend) {
            return Ok(None);
        }
    } else if let L4Header::Tcp(segment) = header {
        tcp::on_segment(env, packet, segment, &mut flow)?;
    }
    Ok(Some(flow))
}

/// Availability of a flow's backend, as [`Backend`] has it.
#[derive(Clone, Copy)]
pub(crate) struct Availability {
    /// Flags of the backend.
    flags: u32,
    /// 0 while the backend has no next hop.
    reachable: u32,
}

impl Availability {
    /// Returns true if the backend takes new flows.
    #[inline(always)]
    pub(crate) const fn takes_flows(self) -> bool {
        self.flags & Backend::TAKES_NO_FLOWS == 0
    }
}

/// Returns true if a packet to the service ends its flow and selects a backend again, whatever the flow's state: a
/// datagram if the backend releases its UDP flows, and a SYN if the backend can't be sent anything.
#[inline(always)]
fn must_reselect(header: L4Header, backend: Availability) -> bool {
    match header {
        L4Header::Udp(_) => backend.flags & Backend::RELEASES_UDP != 0,
        L4Header::Tcp(segment) => backend.reachable == 0 && segment.is_initial_syn(),
        L4Header::None => false,
    }
}

/// Returns the availability of a flow's backend, or the reason why the flow has ended in both directions.
///
/// A flow ends when the approval that it was opened under is revoked, or when its backend is removed or fails its
/// health check.
#[inline(always)]
fn check_flow<F: Family, E: PlatformFor<F>>(
    env: &E,
    flow: &FlowRef<F>,
) -> Result<Availability, DropReason> {
    let entry = flow.entry();
    let is_approved = env
        .connection(entry.connection_slot())
        .is_some_and(|connection| entry.is_of_connection(connection.generation));
    if !is_approved {
        return Err(DropReason::ConnectionRevoked);
    }
    match env.backend(entry.backend_slot.into()) {
        Some(backend) if entry.is_of_backend(backend.generation) => Ok(Availability {
            flags: backend.flags,
            reachable: backend.reachable,
        }),
        _ => Err(DropReason::BackendRemoved),
    }
}

/// Returns the reason why a flow has ended in both directions, or nothing while its packets may pass.
#[inline(always)]
pub(crate) fn end_reason<F: Family, E: PlatformFor<F>>(
    env: &E,
    flow: &FlowRef<F>,
) -> Option<DropReason> {
    check_flow(env, flow).err()
}

/// Rejects a packet of a flow that has ended (see [`end_reason`]). If the packet could open a flow, removes the old
/// flow instead, so that admission decides.
#[inline(always)]
fn reject_or_reopen<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
    reason: DropReason,
) -> StageResult<Option<FlowRef<T>>> {
    if packet.can_open_flow(env) && flow.entry().direction() == Direction::ToService {
        calls::remove(env, flow);
        return Ok(None);
    }
    Err(Exit::reject(reason, flow.entry().connection_slot()))
}
