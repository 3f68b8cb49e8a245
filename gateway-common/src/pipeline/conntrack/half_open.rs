//! Half-open flows: flows that one side has not confirmed.
//!
//! Their table evicts the least recently used entry, so a flood of first packets evicts half-open flows only. A flow
//! moves to the established table, which never evicts, when both sides have confirmed it: for TCP by the consumer's
//! acknowledgement of the backend's SYN, for UDP by a datagram of the consumer after a reply.
//!
//! ```text
//!   consumer           gateway                                backend
//!      │ SYN              │                                      │
//!      ├─────────────────►│ both entries half-open ─────────────►│
//!      │                  │                             SYN, ACK │
//!      │◄─────────────────┤ records the backend's ISN ◄──────────┤
//!      │ ACK of ISN + 1   │                                      │
//!      ├─────────────────►│ both entries established ───────────►│
//! ```

use crate::{
    byte_order::Be32,
    family::Family,
    flow::{Direction, Flow, FlowKey, FlowRef, FlowTables, InsertError, Table, TcpFlagsSeen},
    maps::Statistic,
    packet::TcpFlags,
    pipeline::{
        conntrack::established::{end_reason, lookup_reverse, reject_or_reopen, update_tcp_state},
        ingress::l4::{L4Header, L4Packet},
    },
    platform::{Platform, PlatformFor},
    subprogram::StageResult,
};

/// Returns the half-open flow that the packet belongs to, or the established one that the packet turns it into.
///
/// `just_opened` is true if the packet has opened the flow, so that the flow's state includes it already.
#[inline(always)]
pub(crate) fn lookup_half_open<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
    just_opened: bool,
) -> StageResult<Option<FlowRef<T>>> {
    let Some(flow) = env.lookup_flow(Table::HalfOpen, key) else {
        return Ok(None);
    };
    if let Some(reason) = end_reason(env, key, &flow, Table::HalfOpen) {
        return reject_or_reopen(env, packet, key, &flow, Table::HalfOpen, reason);
    }
    if just_opened {
        return Ok(Some(flow));
    }
    if flow.entry().direction() == Direction::ToConsumer {
        on_backend_reply(env, packet, &flow);
        return Ok(Some(flow));
    }
    // One of the two entries may have been evicted, and its port allocated to another flow.
    let Some(reverse) = lookup_reverse(env, key, &flow, Table::HalfOpen) else {
        env.remove_flow(Table::HalfOpen, key);
        return Ok(None);
    };
    let is_confirmed = match packet.l4_header(env) {
        L4Header::Tcp(tcp) => {
            let expected_ack = Be32::new(reverse.backend_isn().get().wrapping_add(1));
            update_tcp_state(&flow, tcp);
            tcp.flags() & (TcpFlags::ACK | TcpFlags::RST) == TcpFlags::ACK
                && reverse
                    .tcp_flags_seen()
                    .has(TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK))
                && tcp.acknowledgement() == expected_ack
        }
        L4Header::Udp(_) => reverse.tcp_flags_seen().has(TcpFlagsSeen::ACK),
        L4Header::None => false,
    };
    if is_confirmed {
        return Ok(Some(establish(env, key, flow, reverse)));
    }
    Ok(Some(flow))
}

/// Records a packet of the backend.
#[inline(always)]
fn on_backend_reply<A: Family, T: Family, E: Platform>(
    env: &E,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
) {
    match packet.l4_header(env) {
        L4Header::Tcp(tcp) => {
            if tcp.flags() & TcpFlags::SYN != 0 {
                flow.set_backend_isn(tcp.sequence());
            }
            update_tcp_state(flow, tcp);
        }
        L4Header::Udp(_) => flow.set_tcp_flags_seen(TcpFlagsSeen::ACK),
        L4Header::None => {}
    }
}

/// Moves both entries to the established table, and returns the consumer's entry there. The flow stays half-open if
/// that table is full, or has an entry with one of the keys.
#[inline(never)]
fn establish<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: FlowRef<F>,
    reverse: FlowRef<F>,
) -> FlowRef<F> {
    let reverse_key = &flow.entry().reverse_key(key.network_proto.protocol());
    // Not on the stack, which is small in eBPF.
    let Some(scratch) = FlowTables::<F>::flow_scratch(env) else {
        return flow;
    };
    // SAFETY: the memory belongs to this packet alone until the verdict, and any bytes are a valid entry.
    let reverse_entry = unsafe { &mut *scratch.as_ptr() };
    *reverse_entry = *reverse.entry();
    // Written before the entry can be found: no packet may be checked by the number that this one replaces.
    reverse_entry.set_reply_backend(flow.entry().backend());
    // The reverse entry is inserted first: it is the reservation of the source port.
    if insert_established(env, reverse_key, reverse_entry).is_err() {
        return flow;
    }
    if insert_established(env, key, flow.entry()).is_err() {
        env.remove_flow(Table::Established, reverse_key);
        return flow;
    }
    let Some(established) = env.lookup_flow(Table::Established, key) else {
        return flow;
    };
    env.remove_flow(Table::HalfOpen, key);
    env.remove_flow(Table::HalfOpen, reverse_key);
    established
}

#[inline(always)]
fn insert_established<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    key: &FlowKey<F>,
    flow: &Flow<F>,
) -> Result<(), InsertError> {
    let result = env.insert_flow(Table::Established, key, flow);
    if result == Err(InsertError::Full) {
        env.count(Statistic::EstablishedTableFull);
    }
    result
}
