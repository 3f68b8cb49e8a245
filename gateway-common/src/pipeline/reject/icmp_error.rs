//! The gateway's own ICMP errors: why a packet went no further (RFC 792, RFC 4443). The error comes
//! from the address that the packet was for, as an endpoint is the end of its network.

use crate::{
    byte_order::{Be16, Be32},
    checksum::Sum,
    drop_reason::{Attribution, DropReason},
    family::{Family, Header as _, pseudo_header},
    maps::Statistic,
    packet::{Ethernet, Icmp, IcmpErrorType, Mac, protocol},
    pipeline::{
        ingress::{ip_packet::L3_OFFSET, l4::L4Packet},
        rate_limit,
    },
    platform::Platform,
    verdict::Verdict,
};

/// Why a packet goes no further.
#[derive(Clone, Copy)]
pub(crate) enum IcmpReason {
    /// Nobody can serve it now.
    HostUnreachable,
    /// The port is not offered.
    PortUnreachable,
    /// The provider does not allow it.
    AdminProhibited,
    /// It has come too far.
    TimeExceeded,
    /// It is larger than this, in bytes of the family that it arrived in.
    PacketTooBig(u16),
}

impl IcmpReason {
    /// Type and code.
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

    /// What the rest of the ICMP header says.
    #[inline(always)]
    const fn rest_of_header(self) -> Be32 {
        match self {
            Self::PacketTooBig(mtu) => Be32::new(mtu as u32),
            _ => Be32::new(0),
        }
    }
}

/// Turns the packet into the error about it, or drops it. The packet is as it came in.
#[inline(always)]
pub(crate) fn send_error<F: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<F>,
    icmp_reason: IcmpReason,
    attribution: Attribution,
) -> Verdict {
    let key = &packet.key;
    let source_mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    // No errors about later fragments, to groups, or to who can't be a host (RFC 1122, section
    // 3.2.2; RFC 4443, section 2.4 (e)).
    if packet.fragment.is_later_fragment()
        || source_mac.is_multicast()
        || F::is_martian(key.source, key.destination)
        || !rate_limit::may_reject(env, attribution.connection_slot)
    {
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

/// Puts the headers in front of the packet, cut to what an error has of it.
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

/// The checksum of an ICMP message whose own field is 0; of one that has its checksum: 0 if it is
/// right.
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
