//! NAT46 and NAT64: replacement of an IPv4 header by an IPv6 header, or the reverse (RFC 7915).
//!
//! The TCP or UDP checksum changes by the flow's delta, as within a family: the pseudo headers of both families differ
//! only in their addresses.

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    checksum::Sum,
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::Flow,
    maps::Statistic,
    packet::{EtherType, Ethernet, FragmentHeader, Ipv4, Ipv6, protocol},
    pipeline::{
        forward::{decision::ForwardingDecision, rewrite},
        ingress::{
            ip_packet::{Fragment, L3_OFFSET},
            l4::{L4Header, L4Packet},
        },
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Translates a packet into the other family, by its flow.
#[inline(always)]
pub(crate) fn translate_packet<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    decision: &ForwardingDecision<'_, T>,
) -> StageResult<()> {
    let entry = decision.flow.entry();
    let failed = Exit::drop(DropReason::BufferAdjustFailed, entry.connection_slot());
    fill_missing_udp_checksum(env, packet, entry)?;
    rewrite::rewrite_l4(env, packet, decision)?;
    let old = packet.header(env)?;
    let header = IpHeaderFields {
        source: T::to_mapped(entry.source),
        destination: T::to_mapped(entry.destination),
        traffic_class: old.traffic_class(),
        hop_limit: old.hop_limit() - 1,
        protocol: packet.protocol,
        payload_len: packet.payload_len,
        fragment: Fragment {
            id: Be32::new(decision.identification.id()),
            position: packet.fragment.position,
        },
        has_id: decision.identification.is_new(),
    };
    let result = if A::ICMP == protocol::ICMP {
        let growth = Ipv6::LEN_U16 - Ipv4::LEN_U16;
        let added_bytes = if header.fragment.is_fragment() {
            growth + FragmentHeader::LEN_U16
        } else {
            growth
        };
        env.adjust_head(-i32::from(added_bytes))
            .then(|| header.emit_v6(env))
            .flatten()
    } else {
        // Extension headers are removed together with the IPv6 header (RFC 7915, section 5.1).
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the offset behind a few headers"
        )]
        let old_l4_offset = packet.l4_offset.get() as u16;
        let old_l4_offset = env.forget_bounds(old_l4_offset);
        const NEW_L4_OFFSET: u16 = Ethernet::LEN_U16 + Ipv4::LEN_U16;
        let removed_bytes = old_l4_offset.saturating_sub(NEW_L4_OFFSET);
        env.adjust_head(i32::from(removed_bytes))
            .then(|| header.emit_v4(env))
            .flatten()
    };
    result.ok_or(failed)?;
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    ethernet.set_macs(decision.next_hop.mac, decision.egress.mac);
    Ok(())
}

/// Computes the checksum of a UDP datagram that has none, since IPv6 requires one (RFC 7915, section 4.5). Drops
/// fragments, whose checksum covers bytes in other packets.
#[inline(always)]
fn fill_missing_udp_checksum<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    entry: &Flow<T>,
) -> StageResult<()> {
    let L4Header::Udp(udp) = packet.l4_header(env) else {
        return Ok(());
    };
    if A::ICMP == protocol::ICMPV6 || udp.checksum().raw() != 0 {
        return Ok(());
    }
    let failed = Exit::drop(DropReason::ChecksumOffloadFailed, entry.connection_slot());
    if packet.fragment.is_fragment() {
        return Err(Exit::drop(DropReason::Fragment, entry.connection_slot()));
    }
    let length = udp.length().get();
    let sum = env
        .partial_checksum(packet.l4_offset.get(), usize::from(length))
        .ok_or(failed)?;
    let checksum = sum.add_sum(packet.pseudo_header(length)).checksum();
    udp.set_checksum(if checksum.raw() == 0 {
        Be16::from_raw(!0)
    } else {
        checksum
    });
    env.count(Statistic::ChecksumsCompleted);
    Ok(())
}

/// The fields of an IP header of either family that is to be written.
pub(crate) struct IpHeaderFields {
    pub(crate) source: IpAddress,
    pub(crate) destination: IpAddress,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    pub(crate) protocol: u8,
    /// Length of the bytes behind the IP header and the fragment header.
    pub(crate) payload_len: u16,
    pub(crate) fragment: Fragment,
    /// The packet has an identification, so routers may fragment it if it is IPv4.
    pub(crate) has_id: bool,
}

impl IpHeaderFields {
    /// Writes the EtherType, and the headers of [`IpHeaderFields::emit_v6_at`].
    #[inline(always)]
    pub(crate) fn emit_v6<E: Platform>(&self, env: &E) -> Option<()> {
        Ethernet::at(env, 0)?.set_ether_type(EtherType::IPV6);
        self.emit_v6_at(env, L3_OFFSET)
    }

    /// Writes an IPv6 header at an offset and, for a fragment, a fragment header behind it.
    #[inline(always)]
    pub(crate) fn emit_v6_at<E: Platform>(&self, env: &E, at: usize) -> Option<()> {
        let header = Ipv6::at(env, at)?;
        header.emit(
            self.source,
            self.destination,
            self.protocol,
            self.payload_len,
        );
        let class = u32::from(self.traffic_class) << 20;
        header.set_version_and_flow(Be32::new(6 << 28 | class));
        header.set_hop_limit(self.hop_limit);
        if self.fragment.is_fragment() {
            header.set_next_header(protocol::FRAGMENT);
            header.set_payload_length(Be16::new(self.payload_len + FragmentHeader::LEN_U16));
            let fragment_header = FragmentHeader::at(env, at + Ipv6::LEN)?;
            fragment_header.set_next_header(self.protocol);
            fragment_header.set_reserved(0);
            fragment_header.set_position(Be16::new(self.fragment.position));
            fragment_header.set_id(self.fragment.id);
        }
        Some(())
    }

    /// Writes the EtherType and an IPv4 header.
    #[inline(always)]
    pub(crate) fn emit_v4<E: Platform>(&self, env: &E) -> Option<()> {
        Ethernet::at(env, 0)?.set_ether_type(EtherType::IPV4);
        self.emit_v4_at(env, L3_OFFSET)
    }

    /// Writes an IPv4 header at an offset. A packet without an identification gets the don't-fragment flag, with which it
    /// needs none (RFC 6864, section 4).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "keeps the lower half")]
    pub(crate) fn emit_v4_at<E: Platform>(&self, env: &E, at: usize) -> Option<()> {
        let header = Ipv4::at(env, at)?;
        let (source, destination) = (self.source.to_v4()?, self.destination.to_v4()?);
        let (id, fragment) = if self.has_id {
            let position = self.fragment.position;
            (
                Be16::new(self.fragment.id.get() as u16),
                Be16::new(position >> 3 | (position & 1) << 13),
            )
        } else {
            (Be16::new(0), Ipv4::DONT_FRAGMENT)
        };
        header.emit(source, destination, self.protocol, self.payload_len);
        header.set_tos(self.traffic_class);
        header.set_identification(id);
        header.set_flags_and_offset(fragment);
        header.set_ttl(self.hop_limit);
        let bytes = |high, low| Be16::new(u16::from_be_bytes([high, low]));
        let sum = Sum::ZERO
            .add_be16(bytes(Ipv4::VERSION_IHL_NO_OPTIONS, self.traffic_class))
            .add_be16(Be16::new(Ipv4::LEN_U16 + self.payload_len))
            .add_be16(id)
            .add_be16(fragment)
            .add_be16(bytes(self.hop_limit, self.protocol))
            .add_be32(source)
            .add_be32(destination);
        header.set_checksum(sum.checksum());
        Some(())
    }
}
