//! ICMP errors of others: what is in one is the start of a packet that crossed the gateway, as it was
//! after it. The error goes to that packet's sender, with the packet in it as it was before (RFC
//! 5508, section 4; between the families RFC 7915, sections 4.2 and 5.2). Whoever found the error,
//! it comes from the address that the packet was for: nobody learns of the other network's routers.

use crate::{
    Be16, Be32, DropReason, Environment, Family, Step, Turn, checksum,
    family::{Header, V4, V6},
    flow::{Flow, FlowKey, FlowRef, Realm, Table},
    maps::{Attachment, Egress, Statistic},
    packet::{
        Ethernet, Icmp, Ipv4, Ipv6, MacWord, Tcp, TransportChecksum, TransportStart, protocol,
    },
    stages::{
        established::ended,
        forward::{GROWTH, SMALLEST_MTU_V6, egress},
        icmp_error::checksum_of,
        identification, limit, next_hop,
        parse::{Fragment, L3, Place, is_on_wire, not_ours, own_address},
        translate::Outer,
        transport::Message,
    },
};

/// What an error says, read before anything is written.
struct Report<F: Family> {
    /// The flow key of packets that go the error's way.
    key: FlowKey<F>,
    /// 6 (TCP) or 17 (UDP).
    protocol: u8,
    /// Where the message starts.
    at: Place,
    /// Its length in bytes.
    length: u16,
    /// Where the transport header of the packet in it starts.
    inner: Place,
}

/// A flow, and the way that its packets take.
struct Found<T: Family> {
    flow: FlowRef<T>,
    mac: MacWord,
    slot: u32,
    egress: Egress,
}

/// Sends an error on to who sent the packet in it.
#[inline(always)]
pub(super) fn relay<A: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    message: &Message<A>,
) -> Step<Turn> {
    let (source, destination) = {
        let header = message.header(env)?;
        (header.source(), header.destination())
    };
    let found = own_address::<A, E>(env, attachment.network, destination);
    let Some(address) = found else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    let link = address.link;
    if !A::is_host(source, destination) {
        return Err(Turn::drop(DropReason::InvalidSource, link));
    }
    let report =
        read::<A, E>(env, attachment, message, destination).map_err(|r| Turn::drop(r, link))?;
    let at = message.at.get();
    let sum = checksum_of::<A, E>(env, at, message.length, source, destination);
    if sum.is_none_or(|sum| sum.raw() != 0) || !inner_holds::<A, E>(env, at) {
        return Err(Turn::drop(DropReason::ChecksumWrong, link));
    }
    let length = report.length.saturating_add(A::Header::OCTETS);
    if let Some(found) = find::<A, E>(env, &report.key, length)? {
        if A::ICMP == protocol::ICMPV6 && found.flow.fixed().translated() {
            return cross(env, &report, &found);
        }
        return within(env, &report, &found);
    }
    if A::ICMP == protocol::ICMP
        && attachment.translates()
        && let Some(found) = find::<V6, E>(env, &report.key.widen(), length)?
    {
        return cross(env, &report, &found);
    }
    Err(Turn::drop(DropReason::NoFlow, link))
}

/// Whether the header of the packet in the error has the right checksum, if its family has one (RFC
/// 5508, REQ-3).
#[inline(always)]
fn inner_holds<A: Family, E: Environment>(env: &mut E, at: usize) -> bool {
    A::ICMP == protocol::ICMPV6
        || env
            .sum(at + Icmp::LENGTH, Ipv4::LENGTH)
            .is_some_and(|sum| sum.checksum().raw() == 0)
}

/// Reads the packet in the error.
#[inline(always)]
fn read<A: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    message: &Message<A>,
    told: A::Address,
) -> Result<Report<A>, DropReason> {
    let unsupported = DropReason::IcmpUnsupported;
    if message.fragment.is_part() {
        return Err(DropReason::Fragment);
    }
    let shortest = Icmp::OCTETS + A::Header::OCTETS + TransportStart::OCTETS;
    if message.length < shortest {
        return Err(DropReason::Malformed);
    }
    let header =
        A::Header::at(env, message.at.get() + Icmp::LENGTH).ok_or(DropReason::Malformed)?;
    let protocol = header.plain_protocol().ok_or(unsupported)?;
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Err(unsupported);
    }
    if !is_on_wire::<A>(header.source(), header.destination()) {
        return Err(DropReason::MappedAddress);
    }
    // Only who sent the packet is told of it.
    if header.source() != told {
        return Err(DropReason::NoFlow);
    }
    let inner = message
        .at
        .plus(Icmp::LENGTH + usize::from(A::Header::OCTETS));
    let start = TransportStart::at(env, inner.get()).ok_or(DropReason::Malformed)?;
    Ok(Report {
        key: FlowKey {
            realm: Realm::new(attachment.network, protocol),
            source: header.destination(),
            destination: header.source(),
            ports: start.ports().swapped(),
        },
        protocol,
        at: message.at,
        length: message.length,
        inner,
    })
}

/// The flow, in either table, with the way that its packets take now.
#[inline(always)]
fn find<T: Family, E: Environment>(
    env: &mut E,
    key: &FlowKey<T>,
    length: u16,
) -> Step<Option<Found<T>>> {
    let (flow, table) = match T::flow(env, Table::Established, key) {
        Some(flow) => (flow, Table::Established),
        None => match T::flow(env, Table::Embryonic, key) {
            Some(flow) => (flow, Table::Embryonic),
            None => return Ok(None),
        },
    };
    let link = flow.fixed().link;
    if let Some(reason) = ended(env, key, &flow, table) {
        return Err(Turn::drop(reason, link));
    }
    let gone = Turn::drop(DropReason::BackendGone, link);
    let hop = next_hop::of(env, &flow).ok_or(gone)?;
    let out = egress(env, &flow, hop).ok_or(Turn::drop(DropReason::EgressGone, link))?;
    // An error is a packet like others: whoever sends many is not to get round its limits by them.
    limit::packet(env, link, flow.fixed().direction(), length)?;
    Ok(Some(Found {
        flow,
        mac: hop.mac,
        slot: hop.egress,
        egress: out,
    }))
}

/// Rewrites the start of the transport header in the error: the packet's own ports before the
/// gateway, and the checksum that belongs to them.
#[inline(always)]
fn restore_transport<A: Family, T: Family, E: Environment>(
    env: &E,
    report: &Report<A>,
    fixed: &Flow<T>,
) -> Option<()> {
    let start = TransportStart::at(env, report.inner.get())?;
    // The error's way is the flow's, so what is its source is the packet's destination.
    start.set_ports(fixed.ports.swapped());
    // Replacing the same by the same, the other way round, changes the sum by as much.
    if report.protocol == protocol::UDP {
        let updated = checksum::update_udp(start.udp_checksum(), fixed.payload_delta);
        start.set_udp_checksum(updated);
        return Some(());
    }
    let whole = Icmp::OCTETS + A::Header::OCTETS + Tcp::OCTETS;
    if report.length >= whole {
        let tcp = TransportChecksum::at(env, report.inner.get())?;
        tcp.set_checksum(checksum::update(tcp.checksum(), fixed.payload_delta));
    }
    Some(())
}

/// Sends the error on within its family.
#[inline(always)]
fn within<A: Family, T: Family, E: Environment>(
    env: &mut E,
    report: &Report<A>,
    found: &Found<T>,
) -> Step<Turn> {
    let fixed = found.flow.fixed();
    let failed = Turn::drop(DropReason::ReplyFailed, fixed.link);
    let source = A::narrow(T::widen(fixed.source)).ok_or(failed)?;
    let destination = A::narrow(T::widen(fixed.destination)).ok_or(failed)?;
    let outer = A::Header::at(env, L3).ok_or(failed)?;
    if outer.hop_limit() <= 1 {
        return Err(Turn::drop(DropReason::TtlExpired, fixed.link));
    }
    if report.length > found.egress.mtu.saturating_sub(A::Header::OCTETS) {
        return Err(Turn::drop(DropReason::PacketTooBig, fixed.link));
    }
    restore_transport(env, report, fixed).ok_or(failed)?;
    let inner = A::Header::at(env, report.at.get() + Icmp::LENGTH).ok_or(failed)?;
    inner.replace_addresses(destination, source);
    outer.replace_addresses(source, destination);
    outer.age(A::AGED);
    if outer.fragmentable() {
        outer.set_id(identification::of_whole(env, fixed, A::ICMP));
    }
    let icmp = Icmp::at(env, report.at.get()).ok_or(failed)?;
    icmp.set_checksum(Be16::new(0));
    finish::<A, T, E>(
        env,
        found,
        report.at.get(),
        report.length,
        source,
        destination,
    )
}

/// Sends the error on in the other family: everything in front of the transport header in it is
/// written anew.
#[inline(always)]
fn cross<A: Family, T: Family, E: Environment>(
    env: &mut E,
    report: &Report<A>,
    found: &Found<T>,
) -> Step<Turn> {
    let fixed = found.flow.fixed();
    let failed = Turn::drop(DropReason::ReplyFailed, fixed.link);
    let icmp = Icmp::at(env, report.at.get()).ok_or(failed)?;
    let translated = if A::ICMP == protocol::ICMP {
        kind_v6(icmp.type_and_code(), icmp.rest(), found.egress.mtu)
    } else {
        kind_v4(icmp.type_and_code(), icmp.rest(), found.egress.mtu)
    };
    let unsupported = Turn::drop(DropReason::IcmpUnsupported, fixed.link);
    let (kind, rest) = translated.ok_or(unsupported)?;
    let outer = A::Header::at(env, L3).ok_or(failed)?;
    if outer.hop_limit() <= 1 {
        return Err(Turn::drop(DropReason::TtlExpired, fixed.link));
    }
    let inner = A::Header::at(env, report.at.get() + Icmp::LENGTH).ok_or(failed)?;
    restore_transport(env, report, fixed).ok_or(failed)?;
    // What is behind the inner header stays where it is.
    let kept = report.length - Icmp::OCTETS - A::Header::OCTETS;
    let v6 = A::ICMP == protocol::ICMP;
    let (own, icmp_protocol) = if v6 {
        (Ipv6::OCTETS, protocol::ICMPV6)
    } else {
        (Ipv4::OCTETS, protocol::ICMP)
    };
    let length = kept + Icmp::OCTETS + own;
    if length > found.egress.mtu.saturating_sub(own) {
        return Err(Turn::drop(DropReason::PacketTooBig, fixed.link));
    }
    let (source, destination) = (T::widen(fixed.source), T::widen(fixed.destination));
    let new_outer = Outer {
        source,
        destination,
        traffic_class: outer.traffic_class(),
        hop_limit: outer.hop_limit() - 1,
        protocol: icmp_protocol,
        payload: length,
        fragment: Fragment::default(),
    };
    let new_inner = Outer {
        source: destination,
        destination: source,
        traffic_class: inner.traffic_class(),
        hop_limit: inner.hop_limit(),
        protocol: report.protocol,
        payload: inner.payload(),
        fragment: Fragment::default(),
    };
    // Where the inner transport header is must be where it will be.
    let wanted = Ethernet::OCTETS + 2 * own + Icmp::OCTETS;
    #[expect(clippy::cast_possible_truncation, reason = "a few headers")]
    let now = env.opaque(report.inner.get() as u16);
    let shift = i32::from(now) - i32::from(wanted);
    if !env.shift(shift) {
        return Err(failed);
    }
    let at = L3 + usize::from(own);
    let written = if v6 {
        new_outer
            .write_v6(env)
            .and_then(|()| new_inner.write_v6_at(env, at + Icmp::LENGTH))
    } else {
        new_outer
            .write_v4(env)
            .and_then(|()| new_inner.write_v4_at(env, at + Icmp::LENGTH))
    };
    written.ok_or(failed)?;
    let icmp = Icmp::at(env, at).ok_or(failed)?;
    icmp.set_type_and_code(kind);
    icmp.set_checksum(Be16::new(0));
    icmp.set_rest(rest);
    if v6 {
        finish::<V6, T, E>(env, found, at, length, source, destination)
    } else {
        let source = source.to_v4().ok_or(failed)?;
        let destination = destination.to_v4().ok_or(failed)?;
        finish::<V4, T, E>(env, found, at, length, source, destination)
    }
}

/// Writes the checksum of an error of family `F`, and the stations.
#[inline(always)]
fn finish<F: Family, T: Family, E: Environment>(
    env: &mut E,
    found: &Found<T>,
    at: usize,
    length: u16,
    source: F::Address,
    destination: F::Address,
) -> Step<Turn> {
    let failed = Turn::drop(DropReason::ReplyFailed, found.flow.fixed().link);
    let checksum = checksum_of::<F, E>(env, at, length, source, destination).ok_or(failed)?;
    Icmp::at(env, at).ok_or(failed)?.set_checksum(checksum);
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    ethernet.set_stations(found.mac, found.egress.mac);
    env.count(Statistic::ErrorsForwarded);
    let fixed = found.flow.fixed();
    env.count_crossing(fixed.link, fixed.direction(), length + F::Header::OCTETS);
    Ok(Turn::redirect(found.slot))
}

/// ICMP's type, code and rest as ICMPv6's (RFC 7915, section 4.2). `mtu`: of the interface that the
/// error leaves by.
#[inline(always)]
fn kind_v6(kind: Be16, rest: Be32, mtu: u16) -> Option<(Be16, Be32)> {
    let none = Be32::new(0);
    let word = |kind: u16, code: u16| Be16::new(kind << 8 | code);
    let (kind, code) = (kind.get() >> 8, kind.get() & 0xff);
    match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => Some((word(1, 0), none)),
        // Protocol unreachable: the next header is unknown.
        (3, 2) => Some((word(4, 1), Be32::new(6))),
        (3, 3) => Some((word(1, 4), none)),
        (3, 4) => {
            let said = rest.get() & 0xffff;
            // A router that does not say (RFC 1191, section 3): the smallest.
            let most = if said == 0 {
                u32::from(SMALLEST_MTU_V6)
            } else {
                said + u32::from(GROWTH)
            };
            let most = most.min(u32::from(mtu)).max(u32::from(SMALLEST_MTU_V6));
            Some((word(2, 0), Be32::new(most)))
        }
        (3, 9 | 10 | 13 | 15) => Some((word(1, 1), none)),
        (11, 0 | 1) => Some((word(3, code), none)),
        _ => None,
    }
}

/// ICMPv6's as ICMP's (RFC 7915, section 5.2).
#[inline(always)]
fn kind_v4(kind: Be16, rest: Be32, mtu: u16) -> Option<(Be16, Be32)> {
    let none = Be32::new(0);
    let word = |kind: u16, code: u16| Be16::new(kind << 8 | code);
    let (kind, code) = (kind.get() >> 8, kind.get() & 0xff);
    match (kind, code) {
        (1, 0 | 2 | 3) => Some((word(3, 1), none)),
        (1, 1) => Some((word(3, 10), none)),
        (1, 4) => Some((word(3, 3), none)),
        (2, 0) => {
            let most = rest.get().saturating_sub(u32::from(GROWTH));
            let most = most.min(u32::from(mtu)).min(0xffff);
            Some((word(3, 4), Be32::new(most)))
        }
        (3, 0 | 1) => Some((word(11, code), none)),
        (4, 1) => Some((word(3, 2), none)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (ICMP, ICMPv6) both ways, where both ways lead back.
    #[test]
    fn kinds_there_and_back() {
        for (v4, v6) in [
            (0x0301, 0x0100),
            (0x0302, 0x0401),
            (0x0303, 0x0104),
            (0x030a, 0x0101),
            (0x0b00, 0x0300),
            (0x0b01, 0x0301),
        ] {
            let (four, six) = (Be16::new(v4), Be16::new(v6));
            let there = kind_v6(four, Be32::new(0), 1_500);
            assert_eq!(there.map(|(kind, _)| kind), Some(six), "{v4:04x}");
            let back = kind_v4(six, Be32::new(0), 1_500);
            assert_eq!(back.map(|(kind, _)| kind), Some(four), "{v6:04x}");
        }
    }

    #[test]
    fn kinds_that_are_left_out() {
        for v4 in [0x030e, 0x0400, 0x0500, 0x0c00, 0x0b02] {
            assert_eq!(
                kind_v6(Be16::new(v4), Be32::new(0), 1_500),
                None,
                "{v4:04x}"
            );
        }
        for v6 in [0x0105, 0x0400, 0x0402, 0x8000] {
            assert_eq!(
                kind_v4(Be16::new(v6), Be32::new(0), 1_500),
                None,
                "{v6:04x}"
            );
        }
    }

    #[test]
    fn sizes_differ_by_the_headers() {
        let six = |rest, mtu| {
            kind_v6(Be16::new(0x0304), Be32::new(rest), mtu)
                .unwrap()
                .1
                .get()
        };
        assert_eq!(six(1_400, 1_500), 1_420);
        assert_eq!(six(1_500, 1_500), 1_500);
        assert_eq!(six(0, 1_500), 1_280);
        assert_eq!(six(576, 1_500), 1_280);
        let four = |rest, mtu| {
            kind_v4(Be16::new(0x0200), Be32::new(rest), mtu)
                .unwrap()
                .1
                .get()
        };
        assert_eq!(four(1_420, 1_500), 1_400);
        assert_eq!(four(9_000, 1_500), 1_500);
        assert_eq!(four(1_280, 1_500), 1_260);
    }
}
