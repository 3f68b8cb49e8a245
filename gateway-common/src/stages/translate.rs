//! Stage 8 between the families: an IPv4 header becomes an IPv6 one, or the reverse (RFC 7915). What
//! the transport's checksum covers changes by the flow's delta, as within a family: the pseudo
//! headers differ in their addresses only.

use crate::{
    Be16, Be32, DropReason, Environment, Family, IpAddress, Step, Turn,
    checksum::Sum,
    family::Header as _,
    flow::Flow,
    maps::Statistic,
    packet::{EtherType, Ethernet, FragmentHeader, Ipv4, Ipv6, protocol},
    stages::{
        forward::Way,
        parse::{Fragment, L3},
        rewrite,
        transport::{Segment, Transport},
    },
};

/// Rewrites the segment by its flow, into the other family.
#[inline(always)]
pub(super) fn segment<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    way: &Way<'_, T>,
) -> Step<()> {
    let fixed = way.flow.fixed();
    let failed = Turn::drop(DropReason::ReplyFailed, fixed.link);
    check_udp(env, segment, fixed)?;
    rewrite::transport(env, segment, way)?;
    let old = segment.header(env)?;
    let header = Outer {
        source: T::widen(fixed.source),
        destination: T::widen(fixed.destination),
        traffic_class: old.traffic_class(),
        hop_limit: old.hop_limit() - 1,
        protocol: segment.protocol,
        payload: segment.payload,
        fragment: Fragment {
            id: Be32::new(way.identification.id()),
            position: segment.fragment.position,
        },
    };
    let written = if A::ICMP == protocol::ICMP {
        let growth = Ipv6::OCTETS - Ipv4::OCTETS;
        let more = if header.fragment.is_part() {
            growth + FragmentHeader::OCTETS
        } else {
            growth
        };
        env.shift(-i32::from(more))
            .then(|| header.write_v6(env))
            .flatten()
    } else {
        // Extension headers are left out with it (RFC 7915, section 5.1).
        #[expect(clippy::cast_possible_truncation, reason = "a few headers")]
        let before = segment.l4.get() as u16;
        let before = env.opaque(before);
        const FIXED: u16 = Ethernet::OCTETS + Ipv4::OCTETS;
        let less = before.saturating_sub(FIXED);
        env.shift(i32::from(less))
            .then(|| header.write_v4(env))
            .flatten()
    };
    written.ok_or(failed)?;
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    ethernet.set_stations(way.hop.mac, way.egress.mac);
    Ok(())
}

/// A datagram without checksum, which IPv6 has not, gets one (RFC 7915, section 4.5). Of a fragment
/// it can't be told.
#[inline(always)]
fn check_udp<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    fixed: &Flow<T>,
) -> Step<()> {
    let Transport::Udp(udp) = segment.transport(env) else {
        return Ok(());
    };
    if A::ICMP == protocol::ICMPV6 || udp.checksum().raw() != 0 {
        return Ok(());
    }
    let failed = Turn::drop(DropReason::ChecksumRepair, fixed.link);
    if segment.fragment.is_part() {
        return Err(Turn::drop(DropReason::Fragment, fixed.link));
    }
    let length = udp.length().get();
    let sum = env
        .sum(segment.l4.get(), usize::from(length))
        .ok_or(failed)?;
    let checksum = sum.add(segment.pseudo_header(length)).checksum();
    udp.set_checksum(if checksum.raw() == 0 {
        Be16::from_raw(!0)
    } else {
        checksum
    });
    env.count(Statistic::ChecksumsCompleted);
    Ok(())
}

/// A header to be written, of either family.
pub(super) struct Outer {
    pub(super) source: IpAddress,
    pub(super) destination: IpAddress,
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    pub(super) protocol: u8,
    /// The bytes behind the header, and behind a fragment header.
    pub(super) payload: u16,
    pub(super) fragment: Fragment,
}

impl Outer {
    /// Writes an IPv6 header, and a fragment header behind it if it is one's, and the EtherType in
    /// front of it.
    #[inline(always)]
    pub(super) fn write_v6<E: Environment>(&self, env: &E) -> Option<()> {
        Ethernet::at(env, 0)?.set_ether_type(EtherType::IPV6);
        self.write_v6_at(env, L3)?;
        if self.fragment.is_part() {
            let header = Ipv6::at(env, L3)?;
            header.set_next_header(protocol::FRAGMENT);
            header.set_payload_length(Be16::new(self.payload + FragmentHeader::OCTETS));
            let part = FragmentHeader::at(env, L3 + Ipv6::LENGTH)?;
            part.set_next_header(self.protocol);
            part.set_reserved(0);
            part.set_position(Be16::new(self.fragment.position));
            part.set_id(self.fragment.id);
        }
        Some(())
    }

    /// Writes an IPv6 header alone.
    #[inline(always)]
    pub(super) fn write_v6_at<E: Environment>(&self, env: &E, at: usize) -> Option<()> {
        let header = Ipv6::at(env, at)?;
        header.write(self.source, self.destination, self.protocol, self.payload);
        let class = u32::from(self.traffic_class) << 20;
        header.set_version_and_flow(Be32::new(6 << 28 | class));
        header.set_hop_limit(self.hop_limit);
        Some(())
    }

    /// Writes an IPv4 header, and the EtherType in front of it.
    #[inline(always)]
    pub(super) fn write_v4<E: Environment>(&self, env: &E) -> Option<()> {
        Ethernet::at(env, 0)?.set_ether_type(EtherType::IPV4);
        self.write_v4_at(env, L3)
    }

    /// Writes an IPv4 header alone. Whole packets say that they must not be fragmented, and need no
    /// identification then (RFC 6864, section 4).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    pub(super) fn write_v4_at<E: Environment>(&self, env: &E, at: usize) -> Option<()> {
        let header = Ipv4::at(env, at)?;
        let (source, destination) = (self.source.to_v4()?, self.destination.to_v4()?);
        let (id, fragment) = if self.fragment.is_part() {
            let position = self.fragment.position;
            (
                Be16::new(self.fragment.id.get() as u16),
                Be16::new(position >> 3 | (position & 1) << 13),
            )
        } else {
            (Be16::new(0), Ipv4::DONT_FRAGMENT)
        };
        header.write(source, destination, self.protocol, self.payload);
        header.set_tos(self.traffic_class);
        header.set_identification(id);
        header.set_fragment(fragment);
        header.set_ttl(self.hop_limit);
        let bytes = |high, low| Be16::new(u16::from_be_bytes([high, low]));
        let sum = Sum::ZERO
            .be16(bytes(Ipv4::PLAIN, self.traffic_class))
            .be16(Be16::new(Ipv4::OCTETS + self.payload))
            .be16(id)
            .be16(fragment)
            .be16(bytes(self.hop_limit, self.protocol))
            .be32(source)
            .be32(destination);
        header.set_checksum(sum.checksum());
        Some(())
    }
}
