//! L4 packets and ICMP messages: the headers behind the IP header, bounds-checked once.

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

/// An ICMP message.
pub(crate) struct IcmpMessage<F: Family> {
    family: PhantomData<F>,
    type_and_code: Be16,
    /// Offset of the message.
    pub(crate) offset: L4Offset,
    /// Length of the message in bytes.
    pub(crate) length: u16,
    pub(crate) fragment: Fragment,
}

impl<F: Family> IcmpMessage<F> {
    /// Returns the IP header.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }

    /// Returns the ICMP header.
    #[inline(always)]
    pub(crate) fn icmp<E: PacketBuffer>(&self, env: &E) -> StageResult<Icmp> {
        Icmp::at(env, self.offset.get()).ok_or(Exit::drop(DropReason::Truncated, NO_CONNECTION))
    }

    /// Returns true if the message is an error about another packet.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        if F::ICMP == protocol::ICMPV6 {
            Icmp::is_error_v6(self.type_and_code)
        } else {
            Icmp::is_error(self.type_and_code)
        }
    }
}

/// A TCP segment or a UDP datagram, or a later fragment of one.
pub(crate) struct L4Packet<F: Family> {
    pub(crate) key: FlowKey<F>,
    /// 6 (TCP) or 17 (UDP).
    pub(crate) protocol: u8,
    /// Offset of the L4 header.
    pub(crate) l4_offset: L4Offset,
    /// Length of the IP packet in bytes.
    pub(crate) length: u16,
    /// Length of the L4 header and its payload.
    pub(crate) payload_len: u16,
    pub(crate) fragment: Fragment,
}

/// The L4 header of a packet.
#[derive(Clone, Copy)]
pub(crate) enum L4Header {
    Tcp(Tcp),
    Udp(Udp),
    /// No L4 header: the packet is a later fragment.
    None,
}

impl<F: Family> L4Packet<F> {
    /// Builds the L4 packet. The ports come from [`parse_ports`] or from the record of the first fragment.
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

    /// Builds an L4 packet for admission only: it is no fragment, and its lengths are irrelevant.
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

    /// Returns the IP header.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }

    /// Returns the L4 header.
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

    /// Returns the TCP header if the packet has one.
    #[inline(always)]
    pub(crate) fn tcp<E: PacketBuffer>(&self, env: &E) -> Option<Tcp> {
        if self.protocol == protocol::TCP && !self.fragment.is_later_fragment() {
            Tcp::at(env, self.l4_offset.get())
        } else {
            None
        }
    }

    /// Returns true if the packet may open a flow: a SYN without ACK, RST and FIN, or any datagram.
    #[inline(always)]
    pub(crate) fn can_open_flow<E: PacketBuffer>(&self, env: &E) -> bool {
        match self.l4_header(env) {
            L4Header::Tcp(tcp) => tcp.is_initial_syn(),
            L4Header::Udp(_) => true,
            L4Header::None => false,
        }
    }

    /// Returns true if the packet is a SYN, which has TCP options that no other segment has.
    #[inline(always)]
    pub(crate) fn is_syn<E: PacketBuffer>(&self, env: &E) -> bool {
        self.tcp(env)
            .is_some_and(|tcp| tcp.flags() & TcpFlags::SYN != 0)
    }
}

/// Returns true if the gateway processes the protocol.
#[inline(always)]
pub(crate) const fn is_supported_protocol<F: Family>(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP || protocol == F::ICMP
}

/// Returns the ICMP message in the packet.
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

/// Checks the L4 header of a packet that is no later fragment, and returns its ports.
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

/// Returns the drop reason of an L4 header that exceeds the packet. A first fragment must contain the whole header
/// (RFC 1858; RFC 8200, section 4.5).
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
    // IPv6 requires a checksum (RFC 8200, section 8.1).
    let has_no_checksum = F::ICMP == protocol::ICMPV6 && udp.checksum().raw() == 0;
    // The rest of a fragmented datagram is in other packets.
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
