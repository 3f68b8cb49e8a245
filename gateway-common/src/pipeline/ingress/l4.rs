//! The transport header, bounds-checked once.

use core::marker::PhantomData;

use crate::{
    byte_order::Be16,
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{FlowKey, NetworkProto},
    maps::{Attachment, NO_CONNECTION},
    packet::{Icmp, PacketBuffer, PortPair, Tcp, TcpFlags, Udp, protocol},
    pipeline::ingress::{
        ip_packet::{Fragment, IpPacket, L4Offset, network_header},
        parse::drop_packet,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// An ICMP message with its headers.
pub(crate) struct IcmpMessage<F: Family> {
    family: PhantomData<F>,
    type_and_code: Be16,
    /// Where the message starts.
    pub(crate) offset: L4Offset,
    /// The message's length in bytes.
    pub(crate) length: u16,
    pub(crate) fragment: Fragment,
}

impl<F: Family> IcmpMessage<F> {
    /// The network header.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }

    /// The ICMP header.
    #[inline(always)]
    pub(crate) fn icmp<E: PacketBuffer>(&self, env: &E) -> StageResult<Icmp> {
        Icmp::at(env, self.offset.get()).ok_or(Exit::drop(DropReason::Truncated, NO_CONNECTION))
    }

    /// Whether it is an error about another packet.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        if F::ICMP == protocol::ICMPV6 {
            Icmp::is_error_v6(self.type_and_code)
        } else {
            Icmp::is_error(self.type_and_code)
        }
    }
}

/// A TCP segment or UDP datagram, or a later fragment of one.
pub(crate) struct L4Packet<F: Family> {
    pub(crate) key: FlowKey<F>,
    /// 6 (TCP) or 17 (UDP).
    pub(crate) protocol: u8,
    /// Where the transport header starts.
    pub(crate) l4_offset: L4Offset,
    /// The IP packet's length in bytes.
    pub(crate) length: u16,
    /// How much of that is the transport header and what is behind it.
    pub(crate) payload_len: u16,
    pub(crate) fragment: Fragment,
}

/// The transport header.
#[derive(Clone, Copy)]
pub(crate) enum L4Header {
    Tcp(Tcp),
    Udp(Udp),
    /// None: a later fragment.
    None,
}

impl<F: Family> L4Packet<F> {
    /// Puts it together; the ports are those that [`parse_ports`] or a first fragment gave.
    #[inline(always)]
    pub(crate) fn new<E: Platform>(
        env: &E,
        attachment: &Attachment,
        packet: &IpPacket<F>,
        ports: PortPair,
    ) -> StageResult<Self> {
        let header = packet.header(env)?;
        Ok(Self {
            key: FlowKey {
                network_proto: NetworkProto::new(attachment.network, packet.protocol),
                source: header.source(),
                destination: header.destination(),
                ports,
            },
            protocol: packet.protocol,
            l4_offset: packet.l4_offset,
            length: packet.length,
            payload_len: packet.payload_len,
            fragment: packet.fragment,
        })
    }

    /// What admission asks of a segment: it is no fragment, and its lengths don't matter.
    #[inline(always)]
    pub(crate) const fn for_admission(key: FlowKey<F>, protocol: u8, l4_offset: L4Offset) -> Self {
        Self {
            key,
            protocol,
            l4_offset,
            length: 0,
            payload_len: 0,
            fragment: Fragment::NONE,
        }
    }

    /// The network header.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }

    /// The transport header.
    #[inline(always)]
    pub(crate) fn l4_header<E: PacketBuffer>(&self, env: &E) -> L4Header {
        if self.fragment.is_later_fragment() {
            return L4Header::None;
        }
        if self.protocol == protocol::TCP {
            Tcp::at(env, self.l4_offset.get()).map_or(L4Header::None, L4Header::Tcp)
        } else {
            Udp::at(env, self.l4_offset.get()).map_or(L4Header::None, L4Header::Udp)
        }
    }

    /// The TCP header, if it is TCP.
    #[inline(always)]
    pub(crate) fn tcp<E: PacketBuffer>(&self, env: &E) -> Option<Tcp> {
        if self.protocol == protocol::TCP && !self.fragment.is_later_fragment() {
            Tcp::at(env, self.l4_offset.get())
        } else {
            None
        }
    }

    /// Whether a segment like this may open a flow: a SYN alone, or any datagram.
    #[inline(always)]
    pub(crate) fn can_open_flow<E: PacketBuffer>(&self, env: &E) -> bool {
        match self.l4_header(env) {
            L4Header::Tcp(tcp) => tcp.is_initial_syn(),
            L4Header::Udp(_) => true,
            L4Header::None => false,
        }
    }

    /// Whether it is a SYN, which has options that no other segment has.
    #[inline(always)]
    pub(crate) fn is_syn<E: PacketBuffer>(&self, env: &E) -> bool {
        self.tcp(env)
            .is_some_and(|tcp| tcp.flags() & TcpFlags::SYN != 0)
    }
}

/// Whether the protocol is one that the gateway knows.
#[inline(always)]
pub(crate) const fn is_supported_protocol<F: Family>(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP || protocol == F::ICMP
}

/// The ICMP message in the packet.
#[inline(always)]
pub(crate) fn parse_icmp_message<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
) -> StageResult<IcmpMessage<F>> {
    if packet.payload_len < Icmp::LEN_U16 {
        return Err(drop_packet(env, attachment, packet, DropReason::Malformed));
    }
    match Icmp::at(env, packet.l4_offset.get()) {
        Some(icmp) => Ok(IcmpMessage {
            family: PhantomData,
            type_and_code: icmp.type_and_code(),
            offset: packet.l4_offset,
            length: packet.payload_len,
            fragment: packet.fragment,
        }),
        None => Err(drop_packet(env, attachment, packet, DropReason::Truncated)),
    }
}

/// The ports of the segment or datagram in the packet, which is whole or a first fragment. Judges
/// the transport header.
#[inline(always)]
pub(crate) fn parse_ports<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
) -> StageResult<PortPair> {
    let result = if packet.protocol == protocol::TCP {
        parse_tcp_ports(env, packet)
    } else {
        parse_udp_ports(env, packet)
    };
    result.map_err(|reason| drop_packet(env, attachment, packet, reason))
}

/// A first fragment must have the whole transport header (RFC 1858; RFC 8200, section 4.5).
#[inline(always)]
const fn short_header_reason<F: Family>(packet: &IpPacket<F>) -> DropReason {
    if packet.fragment.is_first_fragment() {
        DropReason::Fragment
    } else {
        DropReason::Malformed
    }
}

#[inline(always)]
fn parse_tcp_ports<F: Family, E: PacketBuffer>(
    env: &E,
    packet: &IpPacket<F>,
) -> Result<PortPair, DropReason> {
    let Some(tcp) = Tcp::at(env, packet.l4_offset.get()) else {
        return Err(if packet.fragment.is_first_fragment() {
            DropReason::Fragment
        } else {
            DropReason::Truncated
        });
    };
    let header = tcp.header_length();
    if header < Tcp::LEN_U16 {
        return Err(DropReason::Malformed);
    }
    if header > packet.payload_len {
        return Err(short_header_reason(packet));
    }
    Ok(tcp.ports())
}

#[inline(always)]
fn parse_udp_ports<F: Family, E: PacketBuffer>(
    env: &E,
    packet: &IpPacket<F>,
) -> Result<PortPair, DropReason> {
    let udp = Udp::at(env, packet.l4_offset.get()).ok_or(DropReason::Truncated)?;
    let udp_length = udp.length().get();
    // IPv6 has no datagrams without checksum (RFC 8200, section 8.1).
    let has_no_checksum = F::ICMP == protocol::ICMPV6 && udp.checksum().raw() == 0;
    // The rest of a fragmented one is elsewhere.
    let exceeds_payload = udp_length > packet.payload_len && !packet.fragment.is_first_fragment();
    if udp_length < Udp::LEN_U16
        || exceeds_payload
        || has_no_checksum
        || packet.payload_len < Udp::LEN_U16
    {
        return Err(DropReason::Malformed);
    }
    Ok(udp.ports())
}
