//! The slow path: processes every packet that the fast path does not forward.
//!
//! Local addresses reply to ARP, neighbour discovery and echo requests. ICMP errors continue as ICMP related. TCP and
//! UDP packets update the state of their flow and continue with forwarding, or with opening a flow.

use crate::{
    drop_reason::DropReason,
    family::{Family, V4, V6},
    maps::Attachment,
    packet::{Tcp, protocol},
    pipeline::{
        conntrack::lookup::lookup_flow,
        ingress::{ip_packet::IpPacket, l4, local_address::not_local, parse, parse_l4_packet},
        local::{
            echo::{reply_echo, reply_echo_fragment},
            ndp,
        },
        open::early_drop::early_drop,
    },
    platform::{Platform, PlatformFor},
    subprogram::{Exit, SlowPathHints, StageResult},
};

/// Processes an IPv6 packet: finds neighbour discovery messages, and does everything that IPv4 packets need too.
#[inline(always)]
pub(crate) fn run_v6<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V6>,
    hints: SlowPathHints,
) -> StageResult<Exit> {
    if ndp::is_message(env, packet) {
        return Ok(Exit::NEIGHBOUR_DISCOVERY);
    }
    if packet.is_dst_multicast {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    run(env, attachment, packet, hints)
}

/// Replies to the packet for a local address, or looks up its flow.
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
    // As on the fast path, a SYN passes the early drop before the table is searched, any other packet only if no flow
    // was found.
    let needs_early_drop = !hints.contains(SlowPathHints::SKIP_EARLY_DROP);
    let is_initial_syn = l4_packet.tcp(env).is_some_and(Tcp::is_initial_syn);
    if needs_early_drop && is_initial_syn {
        early_drop(env, attachment, &l4_packet)?;
    }
    if !hints.contains(SlowPathHints::FLOW_MISSED)
        && let Some(flow) = lookup_flow::<A, A, E>(env, &l4_packet, &l4_packet.key)?
    {
        return Ok(Exit::forward(flow.handle()));
    }
    if needs_early_drop && !is_initial_syn {
        early_drop(env, attachment, &l4_packet)?;
    }
    // NAT46 flows lie in the table of IPv6.
    Ok(if A::ICMP == protocol::ICMP && attachment.is_nat46() {
        Exit::NAT46
    } else {
        Exit::OPEN_FLOW
    })
}

/// Looks up the NAT46 flow of an IPv4 packet.
#[inline(always)]
pub(crate) fn run_nat46<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V4>,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    let key = l4_packet.key.to_mapped();
    let flow = lookup_flow::<V4, V6, E>(env, &l4_packet, &key)?;
    Ok(flow.map_or(Exit::OPEN_FLOW, |flow| Exit::forward_nat46(flow.handle())))
}
