//! Stage 4, the common case: one lookup finds the flow, and everything else follows from it.

use crate::{
    DropReason, Environment, Family, Step,
    flow::{Direction, FlowRef, Seen, Table, TcpState},
    stages::{
        parse::{Segment, Transport},
        reset,
    },
};

/// The established flow that the segment belongs to.
///
/// A SYN on a flow that is over is the start of another one: the old flow is removed.
#[inline(always)]
pub(super) fn find<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
) -> Step<Option<FlowRef<F>>> {
    let Some(flow) = F::flow(env, Table::Established, &segment.key) else {
        return Ok(None);
    };
    if is_revoked(env, &flow) {
        return revoked(env, segment, &flow, Table::Established);
    }
    if let Transport::Tcp(tcp) = segment.transport {
        if tcp.opens() && is_over(env, segment, &flow) {
            remove(env, segment, &flow, Table::Established);
            return Ok(None);
        }
        let seen = flow.seen();
        let after = seen.after(tcp.flags());
        if after != seen {
            flow.set_seen(after);
        }
    }
    Ok(Some(flow))
}

/// Whether the approval that the flow was opened under has been withdrawn.
#[inline(always)]
pub(super) fn is_revoked<F: Family, E: Environment>(env: &E, flow: &FlowRef<F>) -> bool {
    env.link(flow.fixed().link)
        .is_none_or(|link| link.generation != flow.fixed().generation)
}

/// A segment of a flow whose approval has been withdrawn: it is refused, or, if it could open a
/// flow, the old one is removed and admission decides.
#[inline(always)]
pub(super) fn revoked<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Step<Option<FlowRef<F>>> {
    if segment.opens() && flow.fixed().direction() == Direction::ToService {
        remove(env, segment, flow, table);
        return Ok(None);
    }
    let link = flow.fixed().link;
    Err(reset::refuse(
        env,
        segment,
        DropReason::ConnectionRevoked,
        link,
    ))
}

/// Removes both entries of the segment's flow.
#[inline(always)]
pub(super) fn remove<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    table: Table,
) {
    let reverse = flow.fixed().reverse_key(segment.key.protocol);
    F::remove_flow(env, table, &segment.key);
    F::remove_flow(env, table, &reverse);
}

/// Whether both directions of a TCP flow have ended. Only a consumer opens flows, so only its SYN
/// can start another.
#[inline(always)]
fn is_over<F: Family, E: Environment>(env: &E, segment: &Segment<F>, flow: &FlowRef<F>) -> bool {
    if flow.fixed().direction() != Direction::ToService {
        return false;
    }
    let reverse = flow.fixed().reverse_key(segment.key.protocol);
    let to_consumer =
        F::flow(env, Table::Established, &reverse).map_or(Seen::NONE, |reverse| reverse.seen());
    TcpState::of(flow.seen(), to_consumer).over()
}
