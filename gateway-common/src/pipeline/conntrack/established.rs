//! Established flows: look-up, TCP state, and the end of a flow.
//!
//! In generic functions `A` is the family that the packet arrives in, and `T` the family in whose tables the flow
//! lies. They are the same, except that NAT46 flows lie in the tables of IPv6.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowKey, FlowRef, Table, TcpFlagsSeen, TcpState},
    packet::{Tcp, TcpFlags},
    pipeline::ingress::l4::L4Packet,
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Returns the established flow that the packet belongs to, and updates its TCP state.
///
/// A SYN for a closed flow opens the next one: the old flow is removed.
#[inline(always)]
pub(crate) fn lookup_established<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
) -> StageResult<Option<FlowRef<T>>> {
    let Some(flow) = env.lookup_flow(Table::Established, key) else {
        return Ok(None);
    };
    // Checked before the state is updated: packets of a flow that has ended don't change it.
    if let Some(reason) = end_reason(env, key, &flow, Table::Established) {
        return reject_or_reopen(env, packet, key, &flow, Table::Established, reason);
    }
    if let Some(tcp) = packet.tcp(env) {
        if tcp.flags() & (TcpFlags::SYN | TcpFlags::RST) != 0 {
            if tcp.is_initial_syn() && is_closed(env, key, &flow) {
                remove_flow(env, key, &flow, Table::Established);
                return Ok(None);
            }
            if tcp.flags() & TcpFlags::RST != 0 && !is_rst_in_window(env, tcp, key, &flow) {
                let connection_slot = flow.entry().connection_slot;
                return Err(Exit::drop(DropReason::ResetOutOfWindow, connection_slot));
            }
        }
        update_tcp_state(&flow, tcp);
    }
    Ok(Some(flow))
}

/// Updates the TCP state of the direction that the segment belongs to.
#[inline(always)]
pub(crate) fn update_tcp_state<F: Family>(flow: &FlowRef<F>, tcp: Tcp) {
    let seen = flow.tcp_flags_seen();
    // The acknowledgement number and the window of a reset are not those of the connection.
    if tcp.flags() & (TcpFlags::ACK | TcpFlags::RST) == TcpFlags::ACK {
        flow.record_ack(
            tcp.acknowledgement(),
            tcp.window(),
            !seen.has(TcpFlagsSeen::ACK),
        );
    }
    let updated = seen.with_segment(tcp.flags());
    if updated != seen {
        flow.set_tcp_flags_seen(updated);
    }
}

/// Returns true if the receiver of a reset accepts it: the sequence number is in the window that the receiver has
/// opened. Other resets neither change the flow nor are forwarded (RFC 5961, section 3; RFC 7857, section 2.2).
#[inline(always)]
fn is_rst_in_window<F: Family, E: PlatformFor<F>>(
    env: &E,
    tcp: Tcp,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
) -> bool {
    lookup_reverse(env, key, flow, Table::Established)
        .is_none_or(|reverse| reverse.is_in_window(tcp.sequence()))
}

/// Returns the reason why a flow has ended in both directions, or nothing while its packets may pass.
///
/// A flow ends when the approval that it was opened under is revoked, or when its backend is removed or fails its
/// health check.
#[inline(always)]
pub(crate) fn end_reason<F: Family, E: PlatformFor<F>>(
    env: &E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Option<DropReason> {
    let entry = flow.entry();
    let is_revoked = env
        .connection(entry.connection_slot)
        .is_none_or(|connection| connection.generation != entry.generation);
    if is_revoked {
        return Some(DropReason::ConnectionRevoked);
    }
    let (slot, generation) = if entry.direction() == Direction::ToService {
        entry.backend()
    } else if table == Table::Established {
        entry.reply_backend()
    } else {
        // The flow may be established at this moment: it enters that table before it leaves this one.
        let to_service = match lookup_reverse(env, key, flow, Table::HalfOpen) {
            Some(entry) => Some(entry),
            None => lookup_reverse(env, key, flow, Table::Established),
        };
        match to_service {
            Some(entry) => entry.entry().backend(),
            // The consumer's entry was evicted, so the backend that may answer is unknown.
            None => return Some(DropReason::NoFlow),
        }
    };
    let is_backend_removed = env
        .backend(slot)
        .is_none_or(|backend| backend.generation != generation);
    is_backend_removed.then_some(DropReason::BackendRemoved)
}

/// Rejects a packet of a flow that has ended (see [`end_reason`]). If the packet could open a flow, removes the old
/// flow instead, so that admission decides.
#[inline(always)]
pub(crate) fn reject_or_reopen<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
    flow: &FlowRef<T>,
    table: Table,
    reason: DropReason,
) -> StageResult<Option<FlowRef<T>>> {
    if packet.can_open_flow(env) && flow.entry().direction() == Direction::ToService {
        remove_flow(env, key, flow, table);
        return Ok(None);
    }
    Err(Exit::reject(reason, flow.entry().connection_slot))
}

/// Returns the entry of the other direction, if it belongs to this flow. Not inlined: an eBPF stack is small, and a key
/// is large.
#[inline(never)]
pub(crate) fn lookup_reverse<F: Family, E: PlatformFor<F>>(
    env: &E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Option<FlowRef<F>> {
    let reverse = env.lookup_flow(
        table,
        &flow.entry().reverse_key(key.network_proto.protocol()),
    )?;
    (reverse.entry().reverse_key(key.network_proto.protocol()) == *key).then_some(reverse)
}

/// Removes both entries of a flow, found under `key`. Not inlined, to save stack.
#[inline(never)]
pub(crate) fn remove_flow<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) {
    let connection_slot = flow.entry().connection_slot;
    let reverse_key = flow.entry().reverse_key(key.network_proto.protocol());
    env.remove_flow(table, key);
    env.remove_flow(table, &reverse_key);
    crate::pipeline::rate_limit::flow_closed(env, connection_slot);
}

/// Returns true if both directions of a TCP flow have ended, so that a SYN may open the next one. Only consumers open
/// flows, so the answer is false for packets to the consumer.
#[inline(always)]
fn is_closed<F: Family, E: PlatformFor<F>>(env: &E, key: &FlowKey<F>, flow: &FlowRef<F>) -> bool {
    if flow.entry().direction() != Direction::ToService {
        return false;
    }
    let reverse = lookup_reverse(env, key, flow, Table::Established);
    let to_consumer = reverse.map_or(TcpFlagsSeen::NONE, |reverse| reverse.tcp_flags_seen());
    TcpState::from_flags_seen(flow.tcp_flags_seen(), to_consumer).is_closed()
}
