//! ICMP errors that the gateway sends about packets it does not forward (RFC 792, RFC 4443). The source of an error is
//! the address that the packet was sent to, since an endpoint is the end of the path in its network.

use crate::{
    byte_order::{Be16, Be32},
    checksum::Sum,
    drop_reason::{Attribution, DropReason},
    family::{Family, Header as _, pseudo_header},
    maps::Statistic,
    packet::{Ethernet, Icmp, IcmpErrorType, Mac, protocol},
    pipeline::{
        ingress::{ip_packet::L3_OFFSET, l4::L4Packet},
        rate_limit::RejectBudget,
    },
    platform::Platform,
    verdict::Verdict,
};

/// The cause that an ICMP error reports.
#[derive(Clone, Copy)]
pub(crate) enum IcmpReason {
    /// The service has no backend that can take the packet.
    HostUnreachable,
    /// The resource does not offer the port, or the packet matches no flow.
    PortUnreachable,
    /// The connection is not approved, or its approval was revoked.
    AdminProhibited,
    /// The TTL or hop limit has expired.
    TimeExceeded,
    /// The packet exceeds this length, in bytes of the family that it arrived in.
    PacketTooBig(u16),
}

impl IcmpReason {
    /// Returns the ICMP type and code.
    #[inline(always)]
    const fn type_and_code<F: Family>(self) -> Be16 {
        let v6 = F::ICMP == protocol::ICMPV6;
        match self {
            Self::HostUnreachable if v6 => IcmpErrorType::ADDRESS_UNREACHABLE_V6,
            Self::PortUnreachable if v6 => IcmpErrorType::PORT_UNREACHABLE_V6,
            Self::AdminProhibited if v6 => IcmpErrorType::ADMIN_PROHIBITED_V6,
            Self::TimeExceeded if v6 => IcmpErrorType::TIME_EXCEEDED_V6,
            Self::PacketTooBig(_) if v6 => IcmpErrorType::PACKET_TOO_BIG_V6,
            Self::HostUnreachable => IcmpErrorType::HOST_UNREACHABLE,
            Self::PortUnreachable => IcmpErrorType::PORT_UNREACHABLE,
            Self::AdminProhibited => IcmpErrorType::ADMIN_PROHIBITED,
            Self::TimeExceeded => IcmpErrorType::TIME_EXCEEDED,
            Self::PacketTooBig(_) => IcmpErrorType::FRAGMENTATION_NEEDED,
        }
    }

    /// Returns the second word of the ICMP header.
    #[inline(always)]
    const fn rest_of_header(self) -> Be32 {
        match self {
            Self::PacketTooBig(mtu) => Be32::new(mtu as u32),
            _ => Be32::new(0),
        }
    }
}

/// Replaces the packet, which is unchanged so far, by an ICMP error about it, or drops it.
#[inline(always)]
pub(crate) fn send_error<F: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<F>,
    icmp_reason: IcmpReason,
    budget: RejectBudget,
    attribution: Attribution,
) -> Verdict {
    let key = &packet.key;
    let source_mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    // No errors are sent about later fragments, or to multicast and martian sources (RFC 1122, section 3.2.2; RFC 4443,
    // section 2.4 (e)).
    if packet.fragment.is_later_fragment()
        || source_mac.is_multicast()
        || F::is_martian(key.source, key.destination)
    {
        return Verdict::Drop(attribution);
    }
    let is_allowed = match icmp_reason {
        IcmpReason::PacketTooBig(_) => budget.may_report_mtu(env),
        _ => budget.may_refuse(env),
    };
    if !is_allowed {
        return Verdict::Drop(attribution);
    }
    match emit_error(env, packet, icmp_reason) {
        Some(()) => {
            env.count(Statistic::IcmpErrorsSent);
            Verdict::IcmpError(attribution)
        }
        None => Verdict::Drop(Attribution::new(
            DropReason::BufferAdjustFailed,
            attribution.connection_slot,
        )),
    }
}

/// Trims the packet to the part that an error embeds, and writes the headers in front of it.
#[inline(always)]
fn emit_error<F: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<F>,
    icmp_reason: IcmpReason,
) -> Option<()> {
    let headers_len = F::Header::LEN_U16 + Icmp::LEN_U16;
    let max_embedded_len = F::MAX_ICMP_ERROR_LEN - headers_len;
    let embedded_len = if packet.length > max_embedded_len {
        max_embedded_len
    } else {
        packet.length
    };
    let ethernet = Ethernet::at(env, 0)?;
    let (gateway_mac, sender_mac) = (ethernet.destination(), ethernet.source());
    let ether_type = ethernet.ether_type();
    let is_trimmed = env.resize(L3_OFFSET + usize::from(embedded_len));
    if !is_trimmed || !env.adjust_head(-i32::from(headers_len)) {
        return None;
    }
    let ethernet = Ethernet::at(env, 0)?;
    ethernet.set_destination(sender_mac);
    ethernet.set_source(gateway_mac);
    ethernet.set_ether_type(ether_type);
    let length = embedded_len + Icmp::LEN_U16;
    let (from, to) = (packet.key.destination, packet.key.source);
    let header = F::Header::at(env, L3_OFFSET)?;
    header.emit(from, to, F::ICMP, length);
    let icmp_offset = L3_OFFSET + usize::from(F::Header::LEN_U16);
    let icmp = Icmp::at(env, icmp_offset)?;
    icmp.set_type_and_code(icmp_reason.type_and_code::<F>());
    icmp.set_checksum(Be16::new(0));
    icmp.set_rest(icmp_reason.rest_of_header());
    let checksum = icmp_checksum::<F, E>(env, icmp_offset, length, from, to)?;
    Icmp::at(env, icmp_offset)?.set_checksum(checksum);
    Some(())
}

/// Returns the checksum of an ICMP message whose checksum field is 0. For a message with a valid checksum the result
/// is 0.
#[inline(always)]
pub(crate) fn icmp_checksum<F: Family, E: Platform>(
    env: &mut E,
    offset: usize,
    length: u16,
    source: F::Address,
    destination: F::Address,
) -> Option<Be16> {
    let message = env.partial_checksum(offset, usize::from(length))?;
    let pseudo = if F::ICMP == protocol::ICMPV6 {
        pseudo_header::<F>(source, destination, F::ICMP, length)
    } else {
        Sum::ZERO
    };
    Some(message.add_sum(pseudo).checksum())
}
