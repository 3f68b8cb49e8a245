//! The slow path.

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
        local::{echo::reply_echo, ndp},
        open::early_drop::early_drop,
    },
    platform::Platform,
    verdict::{Exit, StageResult},
};

/// The first part for IPv6, which has neighbour discovery beside what IPv4 has.
#[inline(always)]
pub(crate) fn slow_path_v6<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V6>,
    previous_exit: Exit,
) -> StageResult<Exit> {
    if let Some(message) = ndp::parse_message(env, packet) {
        return ndp::process_message(env, attachment, packet, message);
    }
    if packet.is_dst_multicast {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    slow_path(env, attachment, packet, previous_exit)
}

/// The general way: what is for the gateway itself is answered, what belongs to a flow is forwarded.
/// `before` is the turn that led here.
#[inline(always)]
pub(crate) fn slow_path<A: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
    previous_exit: Exit,
) -> StageResult<Exit> {
    if !l4::is_supported_protocol::<A>(packet.protocol) {
        let reason = DropReason::ProtocolUnsupported;
        return Err(parse::drop_packet(env, attachment, packet, reason));
    }
    if packet.protocol == A::ICMP && !packet.fragment.is_later_fragment() {
        let message = l4::parse_icmp_message(env, attachment, packet)?;
        if message.is_error() {
            return Err(Exit::ICMP_RELATED);
        }
        return reply_echo(env, attachment, &message);
    }
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    if let Some(exit) =
        forward_known_flow::<A, A, E>(env, attachment, &l4_packet, &l4_packet.key, previous_exit)?
    {
        return Ok(exit);
    }
    // Flows between the families are among IPv6's.
    Err(if A::ICMP == protocol::ICMP && attachment.is_nat46() {
        Exit::NAT46
    } else {
        Exit::OPEN_FLOW
    })
}

/// A segment of a flow that is known: it is forwarded. What no flow can be opened for is turned away before
/// flows that are being opened are looked through. `before` is the turn that led here: where it was found
/// out that no established flow has the segment, that is not looked for once more.
#[inline(always)]
fn forward_known_flow<A: Family, T: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    l4_packet: &L4Packet<A>,
    key: &FlowKey<T>,
    previous_exit: Exit,
) -> StageResult<Option<Exit>> {
    let mut found = None;
    let established_searched =
        previous_exit == Exit::NO_ESTABLISHED_FLOW || previous_exit == Exit::REPROCESS;
    if !established_searched
        && let Some(flow) = established::lookup_established(env, l4_packet, key)?
    {
        found = Some((flow, next_hop::lookup_next_hop(env, &flow)?));
    }
    if found.is_none() {
        if previous_exit == Exit::SLOW_PATH {
            early_drop(env, attachment, l4_packet)?;
        }
        if let Some(flow) =
            half_open::lookup_half_open(env, l4_packet, key, previous_exit == Exit::REPROCESS)?
        {
            found = Some((flow, next_hop::lookup_next_hop(env, &flow)?));
        }
    }
    match found {
        Some((flow, hop)) => send_packet(env, attachment, l4_packet, &flow, hop).map(Some),
        None => Ok(None),
    }
}

/// An IPv4 packet whose flow may be among IPv6's.
#[inline(always)]
pub(crate) fn forward_nat46<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V4>,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    let key = l4_packet.key.to_mapped();
    forward_known_flow::<V4, V6, E>(env, attachment, &l4_packet, &key, Exit::NAT46)?
        .ok_or(Exit::OPEN_FLOW)
}
