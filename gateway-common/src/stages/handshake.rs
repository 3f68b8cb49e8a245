//! Stage 4, for flows that are being opened. They lie in a table that evicts the least recently
//! used, so a flood of first packets makes room among its own kind only; a flow moves to the table
//! that never evicts when both sides have shown that they mean it:
//! for TCP the consumer's acknowledgement of the backend's very SYN, for UDP a datagram of the
//! consumer's after an answer.

use crate::{
    Be32, Environment, Family, Step,
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, FlowRef, Seen, Table},
    maps::Statistic,
    packet::TcpFlags,
    stages::{
        established::{end, ended, note, reverse},
        transport::{Segment, Transport},
    },
};

/// The flow being opened that the segment belongs to, moved on by it. `fresh`: the segment has just
/// opened it, and has been noted.
#[inline(always)]
pub(super) fn find<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    key: &FlowKey<T>,
    fresh: bool,
) -> Step<Option<FlowRef<T>>> {
    let Some(flow) = T::flow(env, Table::Embryonic, key) else {
        return Ok(None);
    };
    if let Some(reason) = ended(env, key, &flow, Table::Embryonic) {
        return end(env, segment, key, &flow, Table::Embryonic, reason);
    }
    if fresh {
        return Ok(Some(flow));
    }
    if flow.fixed().direction() == Direction::ToConsumer {
        answered(env, segment, &flow);
        return Ok(Some(flow));
    }
    // One half of the pair may have been evicted, and its port given to another flow.
    let Some(reverse) = reverse(env, key, &flow, Table::Embryonic) else {
        T::remove_flow(env, Table::Embryonic, key);
        return Ok(None);
    };
    let agreed = match segment.transport(env) {
        Transport::Tcp(tcp) => {
            let confirmed = Be32::new(reverse.sequence().get().wrapping_add(1));
            note(&flow, tcp);
            tcp.flags() & (TcpFlags::ACK | TcpFlags::RST) == TcpFlags::ACK
                && reverse.seen().has(Seen::SYN.and(Seen::ACK))
                && tcp.acknowledgement() == confirmed
        }
        Transport::Udp(_) => reverse.seen().has(Seen::ACK),
        Transport::Rest => false,
    };
    if agreed {
        return Ok(Some(establish(env, key, flow, reverse)));
    }
    Ok(Some(flow))
}

/// Notes the backend's answer.
#[inline(always)]
fn answered<A: Family, T: Family, E: Environment>(
    env: &E,
    segment: &Segment<A>,
    flow: &FlowRef<T>,
) {
    match segment.transport(env) {
        Transport::Tcp(tcp) => {
            if tcp.flags() & TcpFlags::SYN != 0 {
                flow.set_sequence(tcp.sequence());
            }
            note(flow, tcp);
        }
        Transport::Udp(_) => flow.set_seen(Seen::ACK),
        Transport::Rest => {}
    }
}

/// Moves both entries to the table of established flows, and returns the consumer's there. With
/// that table full, or the key taken meanwhile, the flow goes on where it is.
#[inline(never)]
fn establish<F: Family, E: Environment>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: FlowRef<F>,
    reverse: FlowRef<F>,
) -> FlowRef<F> {
    let reverse_key = &flow.fixed().reverse_key(key.realm.protocol());
    // Not on the stack: eBPF's is small.
    let Some(scratch) = F::scratch(env) else {
        return flow;
    };
    // SAFETY: the memory is this packet's alone until the verdict, and any bytes are an entry.
    let answers = unsafe { &mut *scratch.as_ptr() };
    *answers = *reverse.fixed();
    // Before the entry can be found: no packet is to be judged by the number that it replaces.
    answers.set_answering_backend(flow.fixed().backend());
    // The reverse entry goes first: it is the reservation of the port.
    if insert(env, reverse_key, answers).is_err() {
        return flow;
    }
    if insert(env, key, flow.fixed()).is_err() {
        F::remove_flow(env, Table::Established, reverse_key);
        return flow;
    }
    let Some(established) = F::flow(env, Table::Established, key) else {
        return flow;
    };
    F::remove_flow(env, Table::Embryonic, key);
    F::remove_flow(env, Table::Embryonic, reverse_key);
    established
}

#[inline(always)]
fn insert<F: Family, E: Environment>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: &Flow<F>,
) -> Result<(), InsertError> {
    let result = F::insert_flow(env, Table::Established, key, flow);
    if result == Err(InsertError::Full) {
        env.count(Statistic::NotEstablished);
    }
    result
}
