//! The embedded packet of an ICMP error: it identifies the flow, and is restored to what its sender sent.

use crate::{
    checksum,
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{Flow, FlowKey, NetworkProto},
    maps::Attachment,
    packet::{EmbeddedL4Header, EmbeddedTcpChecksum, Icmp, Ipv4, Tcp, protocol},
    pipeline::ingress::{ip_packet::L4Offset, l4::IcmpMessage, parse::are_wire_addresses},
    platform::Platform,
};

/// The embedded packet of an ICMP error, read before anything is written.
pub(crate) struct EmbeddedPacket<F: Family> {
    /// Flow key of packets in the direction of the error, which is the reverse of the embedded packet's.
    pub(crate) key: FlowKey<F>,
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub(crate) protocol: u8,
    /// Offset of the ICMP message.
    pub(crate) icmp_offset: L4Offset,
    /// Length of the ICMP message in bytes.
    pub(crate) length: u16,
    /// Offset of the embedded L4 header.
    pub(crate) embedded_l4_offset: L4Offset,
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
    env: &E,
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
    let header =
        A::Header::at(env, message.offset.get() + Icmp::LEN).ok_or(DropReason::Malformed)?;
    let protocol = header.protocol_without_options().ok_or(unsupported)?;
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
    let embedded_l4_offset = message
        .offset
        .plus(Icmp::LEN + usize::from(A::Header::LEN_U16));
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
        icmp_offset: message.offset,
        length: message.length,
        embedded_l4_offset,
    })
}

/// Restores the embedded L4 header: the ports that the packet had before the gateway rewrote it, and the checksum that
/// belongs to them.
#[inline(always)]
pub(crate) fn restore_l4_header<A: Family, T: Family, E: Platform>(
    env: &E,
    embedded: &EmbeddedPacket<A>,
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
    let len_with_tcp_header = Icmp::LEN_U16 + A::Header::LEN_U16 + Tcp::LEN_U16;
    if embedded.length >= len_with_tcp_header {
        let tcp = EmbeddedTcpChecksum::at(env, embedded.embedded_l4_offset.get())?;
        tcp.set_checksum(checksum::update(tcp.checksum(), entry.l4_csum_delta));
    }
    Some(())
}
