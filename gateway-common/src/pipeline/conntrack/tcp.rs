//! The TCP state of established flows: acknowledgements, FIN and RST.
//!
//! A flow is closed when both FINs are acknowledged, or when a reset is accepted. An acknowledgement covers a FIN if
//! its number is at least the FIN's own sequence number plus one. That number is kept in the entry of the direction
//! that has to send it, which is [`FinUnacked`](PlaceState::FinUnacked) until then.

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::Family,
    flow::{Control, Direction, FlowRef, PlaceState, TcpFlagsSeen, table},
    packet::{Tcp, TcpFlags},
    pipeline::{
        conntrack::{calls, life},
        ingress::l4::L4Packet,
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Updates an established or closed flow by a segment. Drops a reset that its receiver would not accept.
#[inline(always)]
pub(crate) fn on_segment<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    segment: Tcp,
    flow: &mut FlowRef<T>,
) -> StageResult<()> {
    if segment.flags() & TcpFlags::RST != 0 {
        if !is_rst_accepted(env, segment, flow) {
            let connection_slot = flow.entry().connection_slot();
            return Err(Exit::drop(DropReason::ResetOutOfWindow, connection_slot));
        }
        record_flags(flow, segment.flags());
        calls::close(env, flow);
        return Ok(());
    }
    if flow.control.is(PlaceState::Closed) && flow.flags_seen().has(TcpFlagsSeen::RST) {
        life::reopen(env, flow);
    }
    if segment.flags() & TcpFlags::SYN != 0 {
        if flow.entry().direction() == Direction::ToConsumer {
            calls::restart(env, flow, segment.sequence().get().wrapping_add(1));
        } else if segment.is_initial_syn() {
            let _before = flow.update(|control| {
                let seen = control.flags_seen().union(TcpFlagsSeen::SYN_AGAIN);
                control.is_confirmed().then(|| control.with_flags(seen))
            });
        }
    }
    on_valid_segment(env, packet, segment, flow);
    Ok(())
}

/// Runs [`calls::restart`].
///
/// The numbers of the old connection are replaced, since resets and FINs of the new one are judged by its own. A SYN of
/// the backend that the consumer did not ask for is one of the old connection, sent again.
#[inline(always)]
pub(crate) fn restart_now<F: Family, E: PlatformFor<F>>(env: &mut E, next: u32, flow: &FlowRef<F>) {
    let (mut to_consumer, Some(mut to_service)) = (*flow, table::peer::<F, E>(env, flow)) else {
        return;
    };
    let change = |control: Control| {
        control.is_confirmed().then(|| {
            let seen = control.flags_seen().intersection(TcpFlagsSeen::SYN);
            control.with_state(PlaceState::Established).with_flags(seen)
        })
    };
    if !to_service.flags_seen().has(TcpFlagsSeen::SYN_AGAIN) || to_service.update(change).is_none()
    {
        return;
    }
    to_service.set_last_ack(Be32::new(next));
    // The segment itself sets the number of this direction, since no ACK is recorded any more.
    let _before = to_consumer.update(change);
}

/// Updates a flow by a segment that is no reset.
#[inline(always)]
pub(crate) fn on_valid_segment<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    segment: Tcp,
    flow: &mut FlowRef<T>,
) {
    if flow.control.is(PlaceState::FinUnacked) {
        acknowledge_fin(env, segment, flow);
    } else {
        record_ack(flow, segment);
    }
    if segment.flags() & TcpFlags::FIN != 0 {
        let data = packet.payload_len.saturating_sub(segment.header_length());
        let end = segment
            .sequence()
            .get()
            .wrapping_add(u32::from(data))
            .wrapping_add(1);
        calls::record_fin(env, flow, end);
    }
    record_flags(flow, segment.flags() & !TcpFlags::FIN);
}

/// Runs [`calls::record_fin`]. A FIN outside of the window that its receiver has opened changes nothing.
#[inline(always)]
pub(crate) fn record_fin_now<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    end: u32,
    flow: &mut FlowRef<F>,
) {
    let Some(mut peer) = calls::peer(env, flow) else {
        return;
    };
    let sequence = Be32::new(end.wrapping_sub(1));
    if peer.flags_seen().has(TcpFlagsSeen::FIN_ACKED) || !peer.is_in_window(sequence) {
        return;
    }
    record_flags(flow, TcpFlags::FIN);
    // A FIN that is sent again may be recorded already.
    if peer.control.is(PlaceState::FinUnacked) && peer.last_ack().get() == end {
        return;
    }
    let changed = peer.update(|control| {
        control
            .is_confirmed()
            .then(|| control.with_state(PlaceState::FinUnacked))
    });
    if changed.is_some() {
        peer.set_last_ack(Be32::new(end));
    }
}

/// Processes an acknowledgement in a direction that has to acknowledge the other one's FIN.
#[inline(always)]
fn acknowledge_fin<F: Family, E: PlatformFor<F>>(env: &mut E, segment: Tcp, flow: &mut FlowRef<F>) {
    let acknowledgement = segment.acknowledgement();
    if segment.flags() & TcpFlags::ACK != 0 && is_at_least(acknowledgement, flow.last_ack().get()) {
        record_ack(flow, segment);
        calls::record_fin_acked(env, flow);
    }
}

/// Runs [`calls::record_fin_acked`].
#[inline(always)]
pub(crate) fn record_fin_acked_now<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &mut FlowRef<F>,
) {
    let _before = flow.update(|control| {
        let seen = control.flags_seen().union(TcpFlagsSeen::FIN_ACKED);
        control
            .is_confirmed()
            .then(|| control.with_state(PlaceState::Established).with_flags(seen))
    });
    // Read after the exchange: of two CPUs that record one direction each, at least one sees both.
    let both =
        calls::peer(env, flow).is_some_and(|peer| peer.flags_seen().has(TcpFlagsSeen::FIN_ACKED));
    if both && flow.flags_seen().has(TcpFlagsSeen::FIN_ACKED) {
        calls::close(env, flow);
    }
}

/// Returns true if a sequence number is `other` or beyond.
#[inline(always)]
const fn is_at_least(number: Be32, other: u32) -> bool {
    number.get().wrapping_sub(other) < 1 << 31
}

/// Records the acknowledgement number and the window of a segment. A reset's are not those of the connection.
#[inline(always)]
pub(crate) fn record_ack<F: Family>(flow: &FlowRef<F>, segment: Tcp) {
    if segment.flags() & (TcpFlags::ACK | TcpFlags::RST) == TcpFlags::ACK {
        flow.record_ack(
            segment.acknowledgement(),
            segment.window(),
            !flow.flags_seen().has(TcpFlagsSeen::ACK),
        );
    }
}

/// Records TCP flags of a segment in its direction.
#[inline(always)]
pub(crate) fn record_flags<F: Family>(flow: &mut FlowRef<F>, flags: u8) {
    let _before = flow.update(|control| {
        let seen = control.flags_seen().with_segment(flags);
        (seen != control.flags_seen()).then(|| control.with_flags(seen))
    });
}

/// Returns true if the receiver of a reset accepts it: the sequence number is in the window that the receiver has
/// opened, or the backend refuses the consumer's new SYN (RFC 9293, section 3.10.7.3). Other resets neither change the
/// flow nor are forwarded (RFC 5961, section 3; RFC 7857, section 2.2).
#[inline(always)]
fn is_rst_accepted<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    segment: Tcp,
    flow: &FlowRef<F>,
) -> bool {
    calls::peer(env, flow).is_none_or(|peer| {
        let refuses_syn =
            segment.flags() & TcpFlags::ACK != 0 && peer.flags_seen().has(TcpFlagsSeen::SYN_AGAIN);
        refuses_syn || peer.is_in_window(segment.sequence())
    })
}
