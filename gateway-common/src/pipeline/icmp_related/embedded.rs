//! The embedded packet of an ICMP error: it identifies the flow, and is restored to what its sender sent.

use crate::{
    byte_order::Be32,
    checksum,
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{Flow, FlowKey, NetworkProto},
    maps::Attachment,
    packet::{EmbeddedL4Header, EmbeddedTcpChecksum, Icmp, Ipv4, Ipv6, Tcp, protocol},
    pipeline::ingress::{
        ip_packet::{Fragment, L4Offset},
        l4::IcmpMessage,
        parse::{are_wire_addresses, parse_embedded_headers},
    },
    platform::Platform,
};

/// The embedded packet of an ICMP error, read before anything is written.
pub(crate) struct EmbeddedPacket<F: Family> {
    /// Flow key of packets in the direction of the error, which is the reverse of the embedded packet's.
    pub(crate) key: FlowKey<F>,
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub(crate) protocol: u8,
    /// Position of the embedded packet among fragments: none, or the first.
    pub(crate) fragment: Fragment,
    /// Offset of the ICMP message.
    pub(crate) icmp_offset: L4Offset,
    /// Length of the ICMP message in bytes.
    pub(crate) length: u16,
    /// Offset of the embedded L4 header.
    pub(crate) embedded_l4_offset: L4Offset,
    /// Length of the embedded IP header, its extension headers and its fragment header.
    pub(crate) header_len: u16,
}

/// Returns true if the checksum of the embedded IP header is valid (RFC 5508, REQ-3). IPv6 headers have none.
#[inline(always)]
pub(crate) fn is_embedded_checksum_valid<A: Family, E: Platform>(
    env: &mut E,
    icmp_offset: usize,
) -> bool {
    A::ICMP == protocol::ICMPV6
        || env
            .partial_checksum(icmp_offset + Icmp::LEN, Ipv4::LEN)
            .is_some_and(|sum| sum.checksum().raw() == 0)
}

/// Parses the embedded packet of an ICMP error.
#[inline(always)]
pub(crate) fn parse_embedded_packet<A: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    message: &IcmpMessage<A>,
    original_sender: A::Address,
) -> Result<EmbeddedPacket<A>, DropReason> {
    let unsupported = DropReason::IcmpUnsupported;
    if message.fragment.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let min_len = Icmp::LEN_U16 + A::Header::LEN_U16 + EmbeddedL4Header::LEN_U16;
    if message.length < min_len {
        return Err(DropReason::Malformed);
    }
    let ip_offset = message.offset.plus(Icmp::LEN);
    let header = A::Header::at(env, ip_offset.get()).ok_or(DropReason::Malformed)?;
    if !header.has_no_options() {
        return Err(unsupported);
    }
    let (protocol, embedded_l4_offset, fragment) = if A::ICMP == protocol::ICMPV6 {
        let ipv6 = Ipv6::at(env, ip_offset.get()).ok_or(DropReason::Malformed)?;
        // The gateway has forwarded no packet with other headers.
        parse_embedded_headers(env, ipv6, ip_offset).map_err(|_| unsupported)?
    } else {
        let (id, position) = header.fragment_fields();
        let id = Be32::new(u32::from(id));
        let l4_offset = ip_offset.plus(usize::from(A::Header::LEN_U16));
        (header.protocol(), l4_offset, Fragment { id, position })
    };
    if fragment.is_later_fragment() {
        return Err(DropReason::IcmpLaterFragment);
    }
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Err(unsupported);
    }
    if !are_wire_addresses::<A>(header.source(), header.destination()) {
        return Err(DropReason::MappedAddress);
    }
    // An error is forwarded only to the sender of the embedded packet.
    if header.source() != original_sender {
        return Err(DropReason::NoFlow);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the length of a few headers"
    )]
    let header_len = embedded_l4_offset.minus(ip_offset.get()).get() as u16;
    if message.length < Icmp::LEN_U16 + header_len + EmbeddedL4Header::LEN_U16 {
        return Err(DropReason::Malformed);
    }
    let embedded_l4 =
        EmbeddedL4Header::at(env, embedded_l4_offset.get()).ok_or(DropReason::Malformed)?;
    Ok(EmbeddedPacket {
        key: FlowKey {
            network_proto: NetworkProto::new(attachment.network, protocol),
            source: header.destination(),
            destination: header.source(),
            ports: embedded_l4.ports().swapped(),
        },
        protocol,
        fragment,
        icmp_offset: message.offset,
        length: message.length,
        embedded_l4_offset,
        header_len,
    })
}

/// Restores the embedded L4 header: the ports that the packet had before the gateway rewrote it, and the checksum that
/// belongs to them. `length` is the length of the ICMP message.
#[inline(always)]
pub(crate) fn restore_l4_header<A: Family, T: Family, E: Platform>(
    env: &E,
    embedded: &EmbeddedPacket<A>,
    length: u16,
    entry: &Flow<T>,
) -> Option<()> {
    let embedded_l4 = EmbeddedL4Header::at(env, embedded.embedded_l4_offset.get())?;
    // The error travels in the direction of the entry, so the entry's source is the embedded packet's destination.
    embedded_l4.set_ports(entry.ports.swapped());
    // Swapping source and destination does not change a sum, so the entry's delta applies to the embedded packet too.
    if embedded.protocol == protocol::UDP {
        let updated = checksum::update_udp(embedded_l4.udp_checksum(), entry.l4_csum_delta);
        embedded_l4.set_udp_checksum(updated);
        return Some(());
    }
    if length >= Icmp::LEN_U16 + embedded.header_len + Tcp::LEN_U16 {
        let tcp = EmbeddedTcpChecksum::at(env, embedded.embedded_l4_offset.get())?;
        tcp.set_checksum(checksum::update(tcp.checksum(), entry.l4_csum_delta));
    }
    Some(())
}
