//! Classifies frames and parses IP headers. The headers are bounds-checked here, once.
//!
//! Guarantees to later stages:
//!
//! - The destination MAC address is the gateway's (ARP: or broadcast; neighbour discovery: or multicast).
//! - An IPv4 header has no options.
//! - The lengths cover the headers and lie within the frame.
//!
//! A packet that violates one of these is dropped if its destination is a local address or the network is isolated.
//! Otherwise it is passed to the host.

use core::marker::PhantomData;

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::{Family, V4, V6},
    maps::{Attachment, NO_CONNECTION},
    packet::{
        Arp, EtherType, Ethernet, ExtensionHeader, FragmentHeader, Ipv4, Ipv6, VlanTag, protocol,
    },
    pipeline::{
        ingress::{
            ip_packet::{Fragment, IpPacket, L3_OFFSET, L4Offset},
            local_address::{drop_for_destination, not_local},
        },
        local::mld,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Maximum number of extension headers that are parsed.
const MAX_EXTENSION_HEADERS: usize = 4;
/// Maximum length of these extension headers.
const MAX_EXTENSION_BYTES: u16 = 4 * 256 * 8;

/// The kind of a frame.
pub(crate) enum Frame {
    /// ARP.
    Arp(Arp),
    /// IP of either version.
    Ip,
    /// A frame behind a priority tag.
    PriorityTagged,
}

/// Returns the exit of a packet that can't be processed: drop if its destination is a local address.
#[inline(always)]
pub(crate) fn drop_packet<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
    reason: DropReason,
) -> Exit {
    match packet.header(env) {
        Ok(header) => drop_for_destination::<F, E>(env, attachment, header, reason),
        Err(exit) => exit,
    }
}

/// Classifies the frame by its EtherType.
#[inline(always)]
pub(crate) fn classify_frame<E: Platform>(env: &E, attachment: &Attachment) -> StageResult<Frame> {
    let truncated = || not_local(attachment, DropReason::Truncated);
    let ethernet = Ethernet::at(env, 0).ok_or_else(truncated)?;
    match ethernet.ether_type() {
        EtherType::IPV4 | EtherType::IPV6 => Ok(Frame::Ip),
        EtherType::ARP => Arp::at(env, L3_OFFSET)
            .map(Frame::Arp)
            .ok_or_else(truncated),
        EtherType::VLAN
            if VlanTag::at(env, Ethernet::LEN).is_some_and(VlanTag::is_only_priority) =>
        {
            Ok(Frame::PriorityTagged)
        }
        EtherType::VLAN | EtherType::SERVICE_VLAN => {
            Err(not_local(attachment, DropReason::VlanTagged))
        }
        _ => Err(not_local(attachment, DropReason::EtherTypeUnsupported)),
    }
}

/// Returns true if both addresses belong to the family of the header that contains them.
///
/// IPv4-mapped addresses are of IPv4, so no IPv6 packet may carry one (RFC 4291, section 2.5.5.2; RFC 6890, table
/// 20). Tables that hold addresses of both families must not be searched for it.
#[inline(always)]
pub(crate) fn are_wire_addresses<F: Family>(source: F::Address, destination: F::Address) -> bool {
    F::from_mapped(F::to_mapped(source)).is_some()
        && F::from_mapped(F::to_mapped(destination)).is_some()
}

/// Returns true if the destination MAC address is the attachment's.
#[inline(always)]
fn is_for_own_mac<E: Platform>(env: &E, attachment: &Attachment) -> bool {
    Ethernet::at(env, 0).is_some_and(|ethernet| ethernet.is_addressed_to(attachment.mac))
}

/// Parses an IPv4 packet.
#[inline(always)]
pub(crate) fn parse_ipv4<E: Platform>(
    env: &E,
    attachment: &Attachment,
) -> StageResult<IpPacket<V4>> {
    let header = Ipv4::at(env, L3_OFFSET).ok_or(not_local(attachment, DropReason::Truncated))?;
    if !is_for_own_mac(env, attachment) {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    let drop_packet = |reason| {
        Err(drop_for_destination::<V4, E>(
            env, attachment, header, reason,
        ))
    };
    if header.version_ihl() != Ipv4::VERSION_IHL_NO_OPTIONS {
        let has_options =
            header.version_ihl() > Ipv4::VERSION_IHL_NO_OPTIONS && header.version_ihl() <= 0x4f;
        return drop_packet(if has_options {
            DropReason::Ipv4Options
        } else {
            DropReason::Malformed
        });
    }
    let length = header.total_length().get();
    if length < Ipv4::LEN_U16 {
        return drop_packet(DropReason::Malformed);
    }
    if !env.has_len(L3_OFFSET + usize::from(length)) {
        return drop_packet(DropReason::Truncated);
    }
    Ok(IpPacket {
        family: PhantomData,
        protocol: header.protocol(),
        l4_offset: L4Offset::new(L3_OFFSET + Ipv4::LEN),
        length,
        payload_len: length - Ipv4::LEN_U16,
        fragment: Fragment {
            id: Be32::new(u32::from(header.identification().get())),
            position: header.fragment_position(),
        },
        is_dst_multicast: false,
    })
}

/// Parses the header of an IPv6 packet, without extension headers.
#[inline(always)]
pub(crate) fn parse_ipv6_header<E: Platform>(
    env: &E,
    attachment: &Attachment,
) -> StageResult<IpPacket<V6>> {
    let header = Ipv6::at(env, L3_OFFSET).ok_or(not_local(attachment, DropReason::Truncated))?;
    let is_dst_multicast = !is_for_own_mac(env, attachment);
    if is_dst_multicast
        && !Ethernet::at(env, 0).is_some_and(|e| e.destination().is_ipv6_multicast())
    {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    if is_dst_multicast && mld::is_query(env, header) {
        return Err(Exit::PASS);
    }
    if !are_wire_addresses::<V6>(header.source(), header.destination()) {
        return Err(Exit::drop(DropReason::MappedAddress, NO_CONNECTION));
    }
    let payload = header.payload_length().get();
    // A longer payload would exceed every frame. A jumbogram (RFC 2675) has a payload length of zero.
    if !header.is_version_6() || payload == 0 || payload > u16::MAX - Ipv6::LEN_U16 {
        let reason = DropReason::Malformed;
        return Err(drop_for_destination::<V6, E>(
            env, attachment, header, reason,
        ));
    }
    let length = payload + Ipv6::LEN_U16;
    if !env.has_len(L3_OFFSET + usize::from(length)) {
        let reason = DropReason::Truncated;
        return Err(drop_for_destination::<V6, E>(
            env, attachment, header, reason,
        ));
    }
    Ok(IpPacket {
        family: PhantomData,
        protocol: header.next_header(),
        l4_offset: L4Offset::new(L3_OFFSET + Ipv6::LEN),
        length,
        payload_len: payload,
        fragment: Fragment::default(),
        is_dst_multicast,
    })
}

/// Parses an IPv6 packet, including its extension headers.
#[inline(always)]
pub(crate) fn parse_ipv6<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
) -> StageResult<IpPacket<V6>> {
    let start = L4Offset::new(L3_OFFSET + Ipv6::LEN);
    let mut packet = parse_ipv6_header(env, attachment)?;
    if is_extension_header(packet.protocol)
        && let Err(reason) = skip_extension_headers(env, &mut packet, start)
    {
        return Err(drop_packet(env, attachment, &packet, reason));
    }
    if packet.protocol == protocol::FRAGMENT
        && let Err(reason) = skip_fragment_header(env, &mut packet)
    {
        return Err(drop_packet(env, attachment, &packet, reason));
    }
    if is_extension_header(packet.protocol) || packet.protocol == protocol::FRAGMENT {
        let reason = DropReason::ExtensionHeaders;
        return Err(drop_packet(env, attachment, &packet, reason));
    }
    Ok(packet)
}

/// Parses the extension headers and the fragment header of an embedded IPv6 packet. Returns the protocol behind them,
/// the offset of its header, and the position among fragments.
#[inline(always)]
pub(crate) fn parse_embedded_headers<E: Platform>(
    env: &mut E,
    ipv6: Ipv6,
    offset: L4Offset,
) -> Result<(u8, L4Offset, Fragment), DropReason> {
    let payload = ipv6.payload_length().get();
    let l4_offset = offset.plus(Ipv6::LEN);
    let mut packet = IpPacket::<V6> {
        family: PhantomData,
        protocol: ipv6.next_header(),
        l4_offset,
        length: payload.saturating_add(Ipv6::LEN_U16),
        payload_len: payload,
        fragment: Fragment::NONE,
        is_dst_multicast: false,
    };
    if is_extension_header(packet.protocol) {
        skip_extension_headers(env, &mut packet, l4_offset)?;
    }
    if packet.protocol == protocol::FRAGMENT {
        skip_fragment_header(env, &mut packet)?;
    }
    Ok((packet.protocol, packet.l4_offset, packet.fragment))
}

/// Skips a fragment header. A packet that is its datagram's only fragment counts as whole (RFC 6946).
#[inline(always)]
fn skip_fragment_header<E: Platform>(env: &E, packet: &mut IpPacket<V6>) -> Result<(), DropReason> {
    let header = FragmentHeader::at(env, packet.l4_offset.get()).ok_or(DropReason::Truncated)?;
    if packet.payload_len < FragmentHeader::LEN_U16 {
        return Err(DropReason::Malformed);
    }
    packet.fragment = Fragment {
        id: header.id(),
        position: header.position().get() & !0b110,
    };
    packet.protocol = header.next_header();
    packet.l4_offset = packet.l4_offset.plus(FragmentHeader::LEN);
    packet.payload_len -= FragmentHeader::LEN_U16;
    Ok(())
}

/// Returns true for an extension header that has a length (RFC 8200, section 4).
#[inline(always)]
const fn is_extension_header(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
    )
}

/// Skips extension headers that begin at `start`, up to the maximum number.
///
/// Drops headers that make a receiver forward the packet, answer elsewhere or interpret it differently: routing
/// headers with segments left (RFC 7915, section 5.1; RFC 5095), and options other than padding (RFC 9288,
/// section 4). Hop-by-hop options are allowed only in the first place (RFC 8200, section 4.1).
#[inline(always)]
fn skip_extension_headers<E: Platform>(
    env: &mut E,
    packet: &mut IpPacket<V6>,
    start: L4Offset,
) -> Result<(), DropReason> {
    for index in 0..MAX_EXTENSION_HEADERS {
        if !is_extension_header(packet.protocol) {
            break;
        }
        let extension =
            ExtensionHeader::at(env, packet.l4_offset.get()).ok_or(DropReason::Truncated)?;
        let header_len = (u16::from(extension.length()) + 1) * 8;
        if header_len > packet.payload_len || (index > 0 && packet.protocol == protocol::HOP_BY_HOP)
        {
            return Err(DropReason::Malformed);
        }
        if packet.protocol == protocol::ROUTING {
            if extension.segments_left() != 0 {
                return Err(DropReason::RoutingHeader);
            }
        } else if !extension.is_padding() {
            return Err(DropReason::Ipv6Options);
        }
        packet.protocol = extension.next_header();
        packet.l4_offset = packet.l4_offset.plus(usize::from(header_len));
        packet.payload_len -= header_len;
    }
    let extension_bytes = packet.length - Ipv6::LEN_U16 - packet.payload_len;
    let extension_bytes = env.forget_bounds(extension_bytes);
    if extension_bytes > MAX_EXTENSION_BYTES {
        return Err(DropReason::ExtensionHeaders);
    }
    packet.l4_offset = start.plus(usize::from(extension_bytes));
    packet.payload_len = env.forget_bounds(packet.payload_len);
    Ok(())
}
