//! One lookup finds the flow, and everything else follows from it.
//!
//! `A` is the family that the packet arrives in, `T` the one whose table the flow is in: the same,
//! or IPv6's for a flow that is translated.

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowKey, FlowRef, Table, TcpFlagsSeen, TcpState},
    packet::{Tcp, TcpFlags},
    pipeline::ingress::l4::L4Packet,
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// The established flow that the segment belongs to.
///
/// A SYN on a flow that is over is the start of another one: the old flow is removed.
#[inline(always)]
pub(crate) fn lookup_established<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
) -> StageResult<Option<FlowRef<T>>> {
    let Some(flow) = env.lookup_flow(Table::Established, key) else {
        return Ok(None);
    };
    // Before anything is noted: what the segment says counts no more.
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

/// Notes what the segment says of its direction.
#[inline(always)]
pub(crate) fn update_tcp_state<F: Family>(flow: &FlowRef<F>, tcp: Tcp) {
    let seen = flow.tcp_flags_seen();
    // A reset's numbers are not those of a window.
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

/// Whether the receiver of a reset can believe it: its number is in the window that the receiver has
/// opened. Others don't change the flow, and are not carried (RFC 5961, section 3; RFC 7857, section
/// 2.2).
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

/// Returns why no packet of the flow may pass any more, in either direction; none while they may. The
/// approval that it was opened under was withdrawn, or its backend was removed or failed its health
/// check.
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
        // The flow may be established in this moment: it enters that table before it leaves this one.
        let to_service = match lookup_reverse(env, key, flow, Table::HalfOpen) {
            Some(entry) => Some(entry),
            None => lookup_reverse(env, key, flow, Table::Established),
        };
        match to_service {
            Some(entry) => entry.entry().backend(),
            // The consumer's entry was evicted, so nothing tells who may answer.
            None => return Some(DropReason::NoFlow),
        }
    };
    let is_backend_removed = env
        .backend(slot)
        .is_none_or(|backend| backend.generation != generation);
    is_backend_removed.then_some(DropReason::BackendRemoved)
}

/// Refuses a segment of a flow that has ended (see [`end_reason`]), or, if the segment could open a flow, removes the old
/// one, so that admission decides.
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

/// The entry of the other direction, if it is this one's. Not within its callers: an eBPF stack is
/// small, and a key is large.
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

/// Removes both entries of a flow, found under `key`. Likewise.
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

/// Whether both directions of a TCP flow have ended. Only a consumer opens flows, so only its SYN
/// can start another.
#[inline(always)]
fn is_closed<F: Family, E: PlatformFor<F>>(env: &E, key: &FlowKey<F>, flow: &FlowRef<F>) -> bool {
    if flow.entry().direction() != Direction::ToService {
        return false;
    }
    let reverse = lookup_reverse(env, key, flow, Table::Established);
    let to_consumer = reverse.map_or(TcpFlagsSeen::NONE, |reverse| reverse.tcp_flags_seen());
    TcpState::from_flags_seen(flow.tcp_flags_seen(), to_consumer).is_closed()
}
