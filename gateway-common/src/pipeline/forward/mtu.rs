//! MTU and maximum segment size: the packet and segment lengths that fit the networks on both sides.

use crate::{
    family::{Family, Header as _},
    maps::Attachment,
    packet::{Ipv4, Ipv6, protocol},
    pipeline::ingress::l4::L4Packet,
    platform::Platform,
};

/// Difference in length between an IPv6 and an IPv4 header.
pub(crate) const IPV6_HEADER_GROWTH: u16 = Ipv6::LEN_U16 - Ipv4::LEN_U16;

/// Minimum MTU of IPv6 (RFC 8200, section 5).
pub(crate) const MIN_MTU_V6: u16 = 1_280;

/// Returns the maximum length of an arriving packet of family `A` that fits the egress after its translation.
#[inline(always)]
pub(crate) fn max_packet_len<A: Family>(mtu: u16, is_nat46: bool, packet: &L4Packet<A>) -> u16 {
    if !is_nat46 {
        return mtu;
    }
    if A::ICMP == protocol::ICMPV6 {
        let max_len = mtu.saturating_add(IPV6_HEADER_GROWTH);
        return if max_len < MIN_MTU_V6 {
            MIN_MTU_V6
        } else {
            max_len
        };
    }
    let growth = if packet.fragment.is_fragment() {
        IPV6_HEADER_GROWTH + crate::packet::FragmentHeader::LEN_U16
    } else {
        IPV6_HEADER_GROWTH
    };
    mtu.saturating_sub(growth)
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
