//! MTU and maximum segment size: the packet and segment lengths that fit the networks on both sides.

use crate::{
    drop_reason::DropReason,
    family::{Family, Header as _},
    maps::Attachment,
    packet::{FragmentHeader, Ipv4, Ipv6, protocol},
    pipeline::ingress::l4::L4Packet,
    platform::Platform,
    subprogram::Exit,
};

/// Difference in length between an IPv6 and an IPv4 header.
pub(crate) const IPV6_HEADER_GROWTH: u16 = Ipv6::LEN_U16 - Ipv4::LEN_U16;

/// Minimum MTU of IPv6 (RFC 8200, section 5).
pub(crate) const MIN_MTU_V6: u16 = 1_280;

/// Maximum length of an IPv4 packet that a translated IPv6 packet of the minimum MTU becomes. Its sender can't make it
/// shorter, so routers must be free to fragment it (RFC 7915, section 5.1).
const MAX_FRAGMENTABLE_LEN: u16 = MIN_MTU_V6 - IPV6_HEADER_GROWTH;

/// Returns true if an IPv4 packet that was translated from IPv6, with `payload_len` bytes behind its header, leaves
/// without the don't-fragment flag.
#[inline(always)]
pub(crate) const fn is_translated_fragmentable(payload_len: u16) -> bool {
    payload_len <= MAX_FRAGMENTABLE_LEN - Ipv4::LEN_U16
}

/// Returns the maximum length of an arriving packet of family `A` that fits the egress after its translation.
#[inline(always)]
pub(crate) fn max_packet_len<A: Family>(mtu: u16, is_nat46: bool, packet: &L4Packet<A>) -> u16 {
    if !is_nat46 {
        mtu
    } else if A::ICMP == protocol::ICMPV6 {
        mtu.saturating_add(IPV6_HEADER_GROWTH)
    } else {
        mtu.saturating_sub(header_growth(packet.fragment.is_fragment()))
    }
}

/// Returns the exit of a packet of family `A` that exceeds the maximum length: its sender gets an ICMP error. The sender
/// of an IPv6 packet of the minimum MTU can't make it shorter, so it is dropped.
#[inline(always)]
pub(crate) fn packet_too_big<A: Family>(length: u16, max_len: u16, connection_slot: u32) -> Exit {
    if A::ICMP != protocol::ICMPV6 || max_len >= MIN_MTU_V6 {
        Exit::packet_too_big(max_len, connection_slot)
    } else if length > MIN_MTU_V6 {
        Exit::packet_too_big(MIN_MTU_V6, connection_slot)
    } else {
        Exit::drop(DropReason::PacketTooBig, connection_slot)
    }
}

/// Returns the number of bytes by which an IPv4 packet becomes longer when it is translated into IPv6.
#[inline(always)]
pub(crate) const fn header_growth(is_fragment: bool) -> u16 {
    if is_fragment {
        IPV6_HEADER_GROWTH + FragmentHeader::LEN_U16
    } else {
        IPV6_HEADER_GROWTH
    }
}

/// Returns the maximum TCP segment size that fits both networks. Only a SYN announces it, so it is computed for SYNs
/// only.
#[inline(always)]
pub(crate) fn max_segment_size<A: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &L4Packet<A>,
    max_len: u16,
) -> u16 {
    if !packet.is_syn(env) {
        return u16::MAX;
    }
    let ingress_mtu = env
        .egress(attachment.slot)
        .map_or(max_len, |egress| egress.mtu);
    let max_len = if ingress_mtu < max_len {
        ingress_mtu
    } else {
        max_len
    };
    max_len.saturating_sub(A::Header::LEN_U16 + crate::packet::Tcp::LEN_U16)
}
