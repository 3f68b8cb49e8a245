//! Neighbour discovery for local addresses. Solicitations are answered, including those of duplicate address detection
//! (RFC 4861, section 7.2; RFC 4862, section 5.4).
//!
//! A tentative address is not a local address yet, so nothing is answered for it.

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    drop_reason::DropReason,
    family::{ALL_NODES_MAC, Family as _, Header as _, V6, pseudo_header},
    maps::{Attachment, NO_CONNECTION},
    packet::{Ethernet, Ipv6, LinkLayerOption, Mac, NeighbourMessage, protocol},
    pipeline::{
        ingress::{
            ip_packet::{IpPacket, L3_OFFSET},
            local_address::{lookup_local_address, not_local},
        },
        local::conflict::detect_conflict,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Length of the advertisement: the message, and an option with the gateway's MAC address.
const ADVERTISEMENT_LEN: u16 = NeighbourMessage::LEN_U16 + LinkLayerOption::LEN_U16;
/// Offset of the message.
const MESSAGE_OFFSET: usize = L3_OFFSET + Ipv6::LEN;
/// Length of the frame.
const FRAME_LEN: usize = MESSAGE_OFFSET + ADVERTISEMENT_LEN as usize;

/// The multicast address of all nodes on the link: ff02::1.
const ALL_NODES: IpAddress = IpAddress::new([
    Be32::new(0xff02_0000),
    Be32::new(0),
    Be32::new(0),
    Be32::new(1),
]);

/// Returns the neighbour solicitation or advertisement that follows the IPv6 header, if the packet contains one.
#[inline(always)]
pub(crate) fn parse_message<E: Platform>(
    env: &E,
    packet: &IpPacket<V6>,
) -> Option<NeighbourMessage> {
    if packet.protocol != protocol::ICMPV6 || packet.l4_offset.get() != MESSAGE_OFFSET {
        return None;
    }
    NeighbourMessage::at(env, MESSAGE_OFFSET).filter(|message| {
        matches!(
            message.type_and_code(),
            NeighbourMessage::SOLICITATION | NeighbourMessage::ADVERTISEMENT
        )
    })
}

/// Answers a solicitation for a local address. An advertisement of a local address is another host's claim to it.
#[inline(always)]
pub(crate) fn process_message<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V6>,
    message: NeighbourMessage,
) -> StageResult<Exit> {
    let (ipv6, length) = (packet.header(env)?, packet.payload_len);
    let target = message.target();
    // The map of local addresses holds IPv4 addresses as IPv4-mapped ones.
    let Some(target) = V6::from_mapped(target) else {
        return Err(Exit::drop(DropReason::MappedAddress, NO_CONNECTION));
    };
    let source_mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    let is_probe = ipv6.source() == IpAddress::default();
    if message.type_and_code() == NeighbourMessage::ADVERTISEMENT {
        if ipv6.hop_limit() == NeighbourMessage::HOP_LIMIT {
            detect_conflict(env, attachment, source_mac, target, false)?;
        }
        return Ok(if attachment.flags & Attachment::PASS_ARP_ND != 0 {
            Exit::PASS
        } else {
            not_local(attachment, DropReason::UnknownNeighbourTarget)
        });
    }
    if is_probe {
        detect_conflict(env, attachment, source_mac, target, true)?;
    }
    let Some(address) = lookup_local_address::<V6, E>(env, attachment.network, target) else {
        return Err(not_local(attachment, DropReason::UnknownNeighbourTarget));
    };
    let drop = |reason| Exit::drop(reason, address.connection_slot);
    // Section 7.1.1: a message that a router has forwarded, or that is too short, is invalid.
    if ipv6.hop_limit() != NeighbourMessage::HOP_LIMIT || length < NeighbourMessage::LEN_U16 {
        return Err(drop(DropReason::Malformed));
    }
    let source = ipv6.source();
    let is_valid_source = is_probe || V6::is_unicast(source);
    if source_mac.is_multicast() || !is_valid_source || source == target {
        return Err(drop(DropReason::MartianSource));
    }
    // The sender of a probe has no address yet: the advertisement goes to all nodes.
    let (destination, destination_mac, flags) = if is_probe {
        (ALL_NODES, ALL_NODES_MAC, NeighbourMessage::OVERRIDE)
    } else {
        (
            source,
            source_mac,
            NeighbourMessage::SOLICITED | NeighbourMessage::OVERRIDE,
        )
    };
    if !env.resize(FRAME_LEN) {
        return Err(drop(DropReason::BufferAdjustFailed));
    }
    let result = emit_advertisement(env, attachment, target, destination, flags);
    let ethernet = Ethernet::at(env, 0).filter(|_| result.is_some());
    let ethernet = ethernet.ok_or(drop(DropReason::BufferAdjustFailed))?;
    ethernet.set_destination(destination_mac);
    ethernet.set_source(attachment.mac.mac());
    Ok(Exit::REPLY)
}

/// Writes the advertisement over the solicitation. Header views are created here, since resizing the frame invalidates
/// them.
#[inline(always)]
fn emit_advertisement<E: Platform>(
    env: &E,
    attachment: &Attachment,
    target: IpAddress,
    destination: IpAddress,
    flags: u32,
) -> Option<()> {
    let ipv6 = Ipv6::at(env, L3_OFFSET)?;
    let message = NeighbourMessage::at(env, MESSAGE_OFFSET)?;
    let option = LinkLayerOption::at(env, MESSAGE_OFFSET + NeighbourMessage::LEN)?;
    ipv6.emit(target, destination, protocol::ICMPV6, ADVERTISEMENT_LEN);
    ipv6.set_hop_limit(NeighbourMessage::HOP_LIMIT);
    message.set_type_and_code(NeighbourMessage::ADVERTISEMENT);
    message.set_flags(Be32::new(flags));
    message.set_target(target);
    option.set_type_and_length(LinkLayerOption::TARGET);
    option.set_mac(attachment.mac.mac());
    let [a, b, c] = attachment.mac.mac().words();
    let sum = pseudo_header::<V6>(target, destination, protocol::ICMPV6, ADVERTISEMENT_LEN);
    let sum = V6::add_to_sum(sum, target)
        .add_be16(NeighbourMessage::ADVERTISEMENT)
        .add_be32(Be32::new(flags))
        .add_be16(LinkLayerOption::TARGET)
        .add_be16(Be16::from_raw(a))
        .add_be16(Be16::from_raw(b))
        .add_be16(Be16::from_raw(c));
    message.set_checksum(sum.checksum());
    Some(())
}
