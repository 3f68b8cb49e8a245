//! Stage 4, the common case: one lookup finds the flow, and everything else follows from it.
//!
//! `A` is the family that the packet arrives in, `T` the one whose table the flow is in: the same,
//! or IPv6's for a flow that is translated.

use crate::{
    DropReason, Environment, Family, Step, Turn,
    flow::{Direction, FlowKey, FlowRef, Seen, Table, TcpState},
    packet::{Tcp, TcpFlags},
    stages::transport::Segment,
};

/// The established flow that the segment belongs to.
///
/// A SYN on a flow that is over is the start of another one: the old flow is removed.
#[inline(always)]
pub(super) fn find<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    key: &FlowKey<T>,
) -> Step<Option<FlowRef<T>>> {
    let Some(flow) = T::flow(env, Table::Established, key) else {
        return Ok(None);
    };
    // Before anything is noted: what the segment says counts no more.
    if let Some(reason) = ended(env, key, &flow, Table::Established) {
        return end(env, segment, key, &flow, Table::Established, reason);
    }
    if let Some(tcp) = segment.tcp(env) {
        if tcp.flags() & (TcpFlags::SYN | TcpFlags::RST) != 0 {
            if tcp.opens() && is_over(env, key, &flow) {
                remove(env, key, &flow, Table::Established);
                return Ok(None);
            }
            if tcp.flags() & TcpFlags::RST != 0 && !is_believed(env, tcp, key, &flow) {
                let link = flow.fixed().link;
                return Err(Turn::drop(DropReason::ResetOutOfWindow, link));
            }
        }
        note(&flow, tcp);
    }
    Ok(Some(flow))
}

/// Notes what the segment says of its direction.
#[inline(always)]
pub(super) fn note<F: Family>(flow: &FlowRef<F>, tcp: Tcp) {
    let seen = flow.seen();
    // A reset's numbers are not those of a window.
    if tcp.flags() & (TcpFlags::ACK | TcpFlags::RST) == TcpFlags::ACK {
        flow.note(tcp.acknowledgement(), tcp.window(), !seen.has(Seen::ACK));
    }
    let after = seen.after(tcp.flags());
    if after != seen {
        flow.set_seen(after);
    }
}

/// Whether the receiver of a reset can believe it: its number is in the window that the receiver has
/// opened. Others don't change the flow, and are not carried (RFC 5961, section 3; RFC 7857, section
/// 2.2).
#[inline(always)]
fn is_believed<F: Family, E: Environment>(
    env: &E,
    tcp: Tcp,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
) -> bool {
    reverse(env, key, flow, Table::Established)
        .is_none_or(|reverse| reverse.accepts(tcp.sequence()))
}

/// Returns why no packet of the flow may pass any more, in either direction; none while they may. The
/// approval that it was opened under was withdrawn, or its backend was removed or failed its health
/// check.
#[inline(always)]
pub(super) fn ended<F: Family, E: Environment>(
    env: &E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Option<DropReason> {
    let fixed = flow.fixed();
    let revoked = env
        .link(fixed.link)
        .is_none_or(|link| link.generation != fixed.generation);
    if revoked {
        return Some(DropReason::ConnectionRevoked);
    }
    let (slot, generation) = if fixed.direction() == Direction::ToService {
        fixed.backend()
    } else if table == Table::Established {
        fixed.answering_backend()
    } else {
        // The flow may be established in this moment: it enters that table before it leaves this one.
        let to_service = match reverse(env, key, flow, Table::Embryonic) {
            Some(entry) => Some(entry),
            None => reverse(env, key, flow, Table::Established),
        };
        match to_service {
            Some(entry) => entry.fixed().backend(),
            // The consumer's entry was evicted, so nothing tells who may answer.
            None => return Some(DropReason::NoFlow),
        }
    };
    let left = env
        .backend(slot)
        .is_none_or(|backend| backend.generation != generation);
    left.then_some(DropReason::BackendGone)
}

/// Refuses a segment of a flow that has [ended], or, if the segment could open a flow, removes the old
/// one, so that admission decides.
#[inline(always)]
pub(super) fn end<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    key: &FlowKey<T>,
    flow: &FlowRef<T>,
    table: Table,
    reason: DropReason,
) -> Step<Option<FlowRef<T>>> {
    if segment.opens(env) && flow.fixed().direction() == Direction::ToService {
        remove(env, key, flow, table);
        return Ok(None);
    }
    Err(Turn::refuse(reason, flow.fixed().link))
}

/// The entry of the other direction, if it is this one's. Not within its callers: an eBPF stack is
/// small, and a key is large.
#[inline(never)]
pub(super) fn reverse<F: Family, E: Environment>(
    env: &E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Option<FlowRef<F>> {
    let reverse = F::flow(env, table, &flow.fixed().reverse_key(key.realm.protocol()))?;
    (reverse.fixed().reverse_key(key.realm.protocol()) == *key).then_some(reverse)
}

/// Removes both entries of a flow, found under `key`. Likewise.
#[inline(never)]
pub(super) fn remove<F: Family, E: Environment>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: &FlowRef<F>,
    table: Table,
) {
    let link = flow.fixed().link;
    let reverse = flow.fixed().reverse_key(key.realm.protocol());
    F::remove_flow(env, table, key);
    F::remove_flow(env, table, &reverse);
    super::limit::closed(env, link);
}

/// Whether both directions of a TCP flow have ended. Only a consumer opens flows, so only its SYN
/// can start another.
#[inline(always)]
fn is_over<F: Family, E: Environment>(env: &E, key: &FlowKey<F>, flow: &FlowRef<F>) -> bool {
    if flow.fixed().direction() != Direction::ToService {
        return false;
    }
    let reverse = reverse(env, key, flow, Table::Established);
    let to_consumer = reverse.map_or(Seen::NONE, |reverse| reverse.seen());
    TcpState::of(flow.seen(), to_consumer).over()
}
