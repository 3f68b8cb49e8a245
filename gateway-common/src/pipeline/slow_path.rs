//! The slow path: processes every packet that the fast path does not forward.
//!
//! Local addresses reply to ARP, neighbour discovery and echo requests. ICMP errors continue as ICMP related. TCP and
//! UDP packets are forwarded by their flow, or continue with opening one.

use crate::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
    flow::FlowKey,
    maps::Attachment,
    packet::protocol,
    pipeline::{
        conntrack::{established, half_open},
        forward::{next_hop, send::send_packet},
        ingress::{
            ip_packet::IpPacket,
            l4::{self, L4Packet},
            local_address::not_local,
            parse, parse_l4_packet,
        },
        local::{
            echo::{reply_echo, reply_echo_fragment},
            ndp,
        },
        open::early_drop::early_drop,
    },
    platform::{Platform, PlatformFor},
    subprogram::{Exit, SlowPathHints, StageResult},
};

/// Processes an IPv6 packet: neighbour discovery, and everything that IPv4 packets need too.
#[inline(always)]
pub(crate) fn run_v6<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V6>,
    hints: SlowPathHints,
) -> StageResult<Exit> {
    if let Some(message) = ndp::parse_message(env, packet) {
        return ndp::process_message(env, attachment, packet, message);
    }
    if packet.is_dst_multicast {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    run(env, attachment, packet, hints)
}

/// Replies to the packet for a local address, or forwards it by its flow.
#[inline(always)]
pub(crate) fn run<A: Family, E: PlatformFor<A>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
    hints: SlowPathHints,
) -> StageResult<Exit> {
    if !l4::is_supported_protocol::<A>(packet.protocol) {
        let reason = DropReason::ProtocolUnsupported;
        return Err(parse::drop_packet(env, attachment, packet, reason));
    }
    if packet.protocol == A::ICMP {
        if packet.fragment.is_later_fragment() {
            return reply_echo_fragment(env, attachment, packet);
        }
        let message = l4::parse_icmp_message(env, attachment, packet)?;
        if message.is_error() {
            return Ok(Exit::ICMP_RELATED);
        }
        return reply_echo(env, attachment, &message);
    }
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    let key = &l4_packet.key;
    if let Some(exit) = forward_known_flow::<A, A, E>(env, attachment, &l4_packet, key, hints)? {
        return Ok(exit);
    }
    // NAT46 flows lie in the tables of IPv6.
    Ok(if A::ICMP == protocol::ICMP && attachment.is_nat46() {
        Exit::NAT46
    } else {
        Exit::OPEN_FLOW
    })
}

/// Forwards an IPv4 packet by a NAT46 flow, if there is one.
#[inline(always)]
pub(crate) fn run_nat46<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V4>,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    let key = l4_packet.key.to_mapped();
    // The packet has passed the early drop, in the fast path or in the slow path.
    let hints = SlowPathHints::SKIP_EARLY_DROP;
    let exit = forward_known_flow::<V4, V6, E>(env, attachment, &l4_packet, &key, hints)?;
    Ok(exit.unwrap_or(Exit::OPEN_FLOW))
}

/// Forwards the packet if its flow is known. Packets that can't open a flow are dropped before the half-open table is
/// searched.
#[inline(always)]
fn forward_known_flow<A: Family, T: Family, E: PlatformFor<A> + PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    l4_packet: &L4Packet<A>,
    key: &FlowKey<T>,
    hints: SlowPathHints,
) -> StageResult<Option<Exit>> {
    let mut found = None;
    if !hints.contains(SlowPathHints::ESTABLISHED_MISSED)
        && let Some(flow) = established::lookup_established(env, l4_packet, key)?
    {
        found = Some((flow, next_hop::lookup_next_hop(env, &flow)?));
    }
    if found.is_none() {
        if !hints.contains(SlowPathHints::SKIP_EARLY_DROP) {
            early_drop(env, attachment, l4_packet)?;
        }
        let just_opened = hints.contains(SlowPathHints::JUST_OPENED);
        if let Some(flow) = half_open::lookup_half_open(env, l4_packet, key, just_opened)? {
            found = Some((flow, next_hop::lookup_next_hop(env, &flow)?));
        }
    }
    match found {
        Some((flow, hop)) => send_packet(env, attachment, l4_packet, &flow, hop).map(Some),
        None => Ok(None),
    }
}
