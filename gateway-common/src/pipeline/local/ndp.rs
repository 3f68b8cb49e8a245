//! Neighbour discovery for local addresses. Solicitations are answered, including those of duplicate address detection
//! (RFC 4861, section 7.2; RFC 4862, section 5.4).
//!
//! A tentative address is not a local address yet, so nothing is answered for it.
//!
//! A message is validated before it has any effect (RFC 4861, sections 7.1.1 and 7.1.2). Runs as a subprogram of its
//! own.

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    drop_reason::DropReason,
    family::{ALL_NODES_MAC, Family as _, Header as _, V6, pseudo_header},
    maps::{AddressKey, Attachment, NO_CONNECTION},
    packet::{
        Ethernet, Icmp, Ipv6, LinkLayerOption, Mac, NeighbourMessage, NeighbourOption, protocol,
    },
    pipeline::{
        ingress::{
            ip_packet::{IpPacket, L3_OFFSET, L4Offset},
            local_address::{drop_for_destination, lookup_local_address, not_local},
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

/// Maximum number of options that are parsed. Known senders add one or two, and signed messages five (RFC 3971).
const MAX_OPTIONS: usize = 8;

/// Returns true for a neighbour solicitation or advertisement. Messages behind extension headers are none: a fragment
/// must be ignored (RFC 6980), and no sender adds other headers.
#[inline(always)]
pub(crate) fn is_message<E: Platform>(env: &E, packet: &IpPacket<V6>) -> bool {
    packet.protocol == protocol::ICMPV6
        && packet.l4_offset.get() == MESSAGE_OFFSET
        && Icmp::at(env, MESSAGE_OFFSET)
            .is_some_and(|icmp| NeighbourMessage::is_type(icmp.type_and_code()))
}

/// Answers a solicitation for a local address. An advertisement of a local address is another host's claim to it.
#[inline(always)]
pub(crate) fn process_message<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<V6>,
) -> StageResult<Exit> {
    let ipv6 = packet.header(env)?;
    let Some(message) = NeighbourMessage::at(env, MESSAGE_OFFSET) else {
        let reason = DropReason::NeighbourMessageInvalid;
        return Err(drop_for_destination::<V6, E>(env, attachment, ipv6, reason));
    };
    // The map of local addresses holds IPv4 addresses as IPv4-mapped ones.
    let Some(target) = V6::from_mapped(message.target()) else {
        return Err(Exit::drop(DropReason::MappedAddress, NO_CONNECTION));
    };
    if let Some(reason) = find_violation(env, packet, ipv6, message) {
        return Err(discard(env, attachment, target, reason));
    }
    let source_mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    let is_probe = ipv6.source() == IpAddress::default();
    if message.type_and_code() == NeighbourMessage::ADVERTISEMENT {
        detect_conflict(env, attachment, source_mac, target, false)?;
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

/// Returns the exit of an invalid message: drop if its target is a local address, even a tentative one, else as
/// [`not_local`].
#[inline(always)]
fn discard<E: Platform>(
    env: &E,
    attachment: &Attachment,
    target: IpAddress,
    reason: DropReason,
) -> Exit {
    let key = AddressKey {
        network: attachment.network,
        address: target,
    };
    match env.local_address(&key) {
        Some(address) => Exit::drop(reason, address.connection_slot),
        None => not_local(attachment, reason),
    }
}

/// Returns the reason to discard a message, if there is one (RFC 4861, sections 7.1.1 and 7.1.2).
#[inline(always)]
fn find_violation<E: Platform>(
    env: &mut E,
    packet: &IpPacket<V6>,
    ipv6: Ipv6,
    message: NeighbourMessage,
) -> Option<DropReason> {
    let invalid = Some(DropReason::NeighbourMessageInvalid);
    let is_advertisement = match message.type_and_code() {
        NeighbourMessage::SOLICITATION => false,
        NeighbourMessage::ADVERTISEMENT => true,
        // Any other code.
        _ => return invalid,
    };
    // A router decrements the hop limit, so the message is from this link.
    if ipv6.hop_limit() != NeighbourMessage::HOP_LIMIT
        || packet.payload_len < NeighbourMessage::LEN_U16
        || is_multicast(message.target())
    {
        return invalid;
    }
    let (source, destination) = (ipv6.source(), ipv6.destination());
    let is_probe = !is_advertisement && source == IpAddress::default();
    let contradicts = if is_advertisement {
        is_multicast(destination) && message.flags().get() & NeighbourMessage::SOLICITED != 0
    } else {
        is_probe && !is_solicited_node(destination)
    };
    let options_end = MESSAGE_OFFSET + usize::from(packet.payload_len);
    if contradicts || !are_options_valid(env, options_end, is_advertisement, is_probe) {
        return invalid;
    }
    let sum = env.partial_checksum(MESSAGE_OFFSET, usize::from(packet.payload_len));
    let pseudo = pseudo_header::<V6>(source, destination, protocol::ICMPV6, packet.payload_len);
    let is_correct = sum.is_some_and(|sum| sum.add_sum(pseudo).checksum().raw() == 0);
    (!is_correct).then_some(DropReason::ChecksumWrong)
}

/// Returns true if each option has a length and lies within the message, one with a MAC address has its length, and a
/// probe has none with its sender's.
#[inline(always)]
fn are_options_valid<E: Platform>(
    env: &mut E,
    end: usize,
    is_advertisement: bool,
    is_probe: bool,
) -> bool {
    const UNIT: usize = 8;
    let mut offset = MESSAGE_OFFSET + NeighbourMessage::LEN;
    for _ in 0..MAX_OPTIONS {
        if offset >= end {
            break;
        }
        let Some(option) = NeighbourOption::at(env, L4Offset::new(offset).get()) else {
            return false;
        };
        let (option_type, length) = (option.option_type(), option.length());
        let is_link_layer = if is_advertisement {
            option_type == NeighbourOption::TARGET_LINK_LAYER
        } else {
            option_type == NeighbourOption::SOURCE_LINK_LAYER
        };
        if length == 0 || (is_link_layer && (length != 1 || is_probe)) {
            return false;
        }
        offset += usize::from(length) * UNIT;
    }
    // An option that exceeds the message, or more options than are parsed.
    offset == end
}

/// Returns true for a multicast address.
#[inline(always)]
fn is_multicast(address: IpAddress) -> bool {
    address.words()[0].get() >> 24 == 0xff
}

/// Returns true for a solicited-node multicast address: ff02::1:ff00:0/104 (RFC 4291, section 2.7.1).
#[inline(always)]
fn is_solicited_node(address: IpAddress) -> bool {
    let [a, b, c, d] = address.words();
    a.get() == 0xff02_0000 && b.get() == 0 && c.get() == 1 && d.get() >> 24 == 0xff
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
