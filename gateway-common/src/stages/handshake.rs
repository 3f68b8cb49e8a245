//! Stage 4, for flows that are being opened. They lie in a table that evicts the least recently
//! used, so a flood of first packets makes room among its own kind only; a flow moves to the table
//! that never evicts when both sides have shown that they mean it:
//! for TCP the consumer's acknowledgement of the backend's very SYN, for UDP a datagram of the
//! consumer's after an answer.

use crate::{
    Be32, Environment, Step,
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, FlowRef, Seen, Table},
    maps::Statistic,
    packet::TcpFlags,
    stages::{
        established::{is_revoked, revoked},
        parse::{Segment, Transport},
    },
};

/// The flow being opened that the segment belongs to, moved on by it.
#[inline(always)]
pub(super) fn find<E: Environment>(env: &mut E, segment: &Segment) -> Step<Option<FlowRef>> {
    let Some(flow) = env.flow(Table::Embryonic, &segment.key) else {
        return Ok(None);
    };
    if is_revoked(env, &flow) {
        return revoked(env, segment, &flow, Table::Embryonic);
    }
    if flow.fixed().direction() == Direction::ToConsumer {
        answered(segment, &flow);
        return Ok(Some(flow));
    }
    // One half of the pair may have been evicted, and its port given to another flow.
    let reverse_key = flow.fixed().reverse_key(segment.key.protocol);
    let reverse = env
        .flow(Table::Embryonic, &reverse_key)
        .filter(|reverse| reverse.fixed().reverse_key(segment.key.protocol) == segment.key);
    let Some(reverse) = reverse else {
        env.remove_flow(Table::Embryonic, &segment.key);
        return Ok(None);
    };
    let agreed = match segment.transport {
        Transport::Tcp(tcp) => {
            let confirmed = Be32::new(reverse.sequence().get().wrapping_add(1));
            flow.set_seen(flow.seen().after(tcp.flags()));
            tcp.flags() & TcpFlags::ACK != 0
                && reverse.seen().has(Seen::SYN.and(Seen::ACK))
                && tcp.acknowledgement() == confirmed
        }
        Transport::Udp(_) => reverse.seen().has(Seen::ACK),
    };
    if agreed {
        return Ok(Some(establish(
            env,
            &segment.key,
            &reverse_key,
            flow,
            reverse,
        )));
    }
    Ok(Some(flow))
}

/// Notes the backend's answer.
#[inline(always)]
fn answered(segment: &Segment, flow: &FlowRef) {
    match segment.transport {
        Transport::Tcp(tcp) => {
            if tcp.flags() & TcpFlags::SYN != 0 {
                flow.set_sequence(tcp.sequence());
            }
            flow.set_seen(flow.seen().after(tcp.flags()));
        }
        Transport::Udp(_) => flow.set_seen(Seen::ACK),
    }
}

/// Moves both entries to the table of established flows, and returns the consumer's there. With
/// that table full, or the key taken meanwhile, the flow goes on where it is.
#[inline(always)]
fn establish<E: Environment>(
    env: &mut E,
    key: &FlowKey,
    reverse_key: &FlowKey,
    flow: FlowRef,
    reverse: FlowRef,
) -> FlowRef {
    // The reverse entry goes first: it is the reservation of the port.
    let copies = (copy(&reverse), copy(&flow));
    if insert(env, reverse_key, &copies.0).is_err() {
        return flow;
    }
    if insert(env, key, &copies.1).is_err() {
        env.remove_flow(Table::Established, reverse_key);
        return flow;
    }
    let Some(established) = env.flow(Table::Established, key) else {
        return flow;
    };
    env.remove_flow(Table::Embryonic, key);
    env.remove_flow(Table::Embryonic, reverse_key);
    established
}

#[inline(always)]
fn insert<E: Environment>(env: &mut E, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
    let result = env.insert_flow(Table::Established, key, flow);
    if result == Err(InsertError::Full) {
        env.count(Statistic::NotEstablished);
    }
    result
}

/// The entry as it is now, its changing fields included.
#[inline(always)]
fn copy(flow: &FlowRef) -> Flow {
    Flow {
        seen: flow.seen().0,
        last_seen: flow.last_seen().0,
        sequence: flow.sequence(),
        ..*flow.fixed()
    }
}
