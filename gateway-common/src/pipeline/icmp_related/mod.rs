//! ICMP related: ICMP errors about packets of flows.
//!
//! The embedded packet of an error is the start of a packet that the gateway forwarded, in its rewritten form. The
//! error is forwarded to the sender of that packet, with the embedded packet in its original form (RFC 5508, section 4;
//! between the address families RFC 7915, sections 4.2 and 5.2).
//!
//! ```text
//!   consumer ◄─────────────── gateway ◄─────────────── router in the provider's network
//!     error from the endpoint          error from the router
//!     ┌───────────────────┐            ┌──────────────────┐
//!     │ consumer→endpoint │            │ SNAT→backend     │   embedded packet
//!     └───────────────────┘            └──────────────────┘
//! ```
//!
//! The embedded packet may be the first fragment of a datagram. A later fragment has no ports, and fragment records are
//! found by the addresses that a fragment arrived with, so errors about one are dropped.
//!
//! The source of the forwarded error is always the address that the packet was sent to, whichever router sent the
//! error. So routers of the other network are not revealed.

mod embedded;
mod icmp46;

use crate::{
    byte_order::{Be16, Be32},
    drop_reason::DropReason,
    family::{Family, Header as _, V4, V6},
    flow::{FlowKey, FlowRef},
    maps::{Attachment, Egress, Statistic},
    packet::{EmbeddedL4Header, Ethernet, FragmentHeader, Icmp, Ipv4, Ipv6, PackedMac, protocol},
    pipeline::{
        conntrack::{calls, lookup::end_reason},
        forward::{
            identification,
            mtu::{header_growth, is_translated_fragmentable},
            nat46::IpHeaderFields,
            next_hop::{self, lookup_egress},
        },
        icmp_related::{
            embedded::{
                EmbeddedPacket, is_embedded_checksum_valid, parse_embedded_packet,
                restore_l4_header,
            },
            icmp46::{icmp4_to_icmp6, icmp6_to_icmp4, len_without_extensions},
        },
        ingress::{
            ip_packet::{Fragment, IpPacket, L3_OFFSET},
            l4::{self, IcmpMessage},
            local_address::{lookup_local_address, not_local},
        },
        rate_limit,
        reject::icmp_error::icmp_checksum,
    },
    platform::{Platform, PlatformFor},
    subprogram::{Exit, StageResult},
};

/// A flow, and the next hop of its packets.
struct FlowMatch<T: Family> {
    flow: FlowRef<T>,
    mac: PackedMac,
    egress_slot: u32,
    network: u32,
    egress: Egress,
}

/// Forwards an ICMP error to the sender of the embedded packet.
#[inline(always)]
fn forward_error<A: Family, E: PlatformFor<A>>(
    env: &mut E,
    attachment: &Attachment,
    message: &IcmpMessage<A>,
) -> StageResult<Exit> {
    let (source, destination) = {
        let header = message.header(env)?;
        (header.source(), header.destination())
    };
    let local_address = lookup_local_address::<A, E>(env, attachment.network, destination);
    let Some(address) = local_address else {
        return Err(not_local(attachment, DropReason::NoSuchEndpoint));
    };
    let connection_slot = address.connection_slot;
    if A::is_martian(source, destination) {
        return Err(Exit::drop(DropReason::MartianSource, connection_slot));
    }
    let embedded = parse_embedded_packet::<A, E>(env, attachment, message, destination)
        .map_err(|r| Exit::drop(r, connection_slot))?;
    let icmp_offset = message.offset.get();
    let sum = icmp_checksum::<A, E>(env, icmp_offset, message.length, source, destination);
    if sum.is_none_or(|sum| sum.raw() != 0) || !is_embedded_checksum_valid::<A, E>(env, icmp_offset)
    {
        return Err(Exit::drop(DropReason::ChecksumWrong, connection_slot));
    }
    let length = embedded.length.saturating_add(A::Header::LEN_U16);
    if let Some(matched) = lookup_flow::<A, E>(env, &embedded.key, length)? {
        if A::ICMP == protocol::ICMPV6 && matched.flow.entry().is_nat46() {
            return relay_cross_family(env, &embedded, &matched);
        }
        return relay_same_family(env, &embedded, &matched);
    }
    if A::ICMP == protocol::ICMP
        && attachment.is_nat46()
        && let Some(matched) = lookup_flow::<V6, E>(env, &embedded.key.to_mapped(), length)?
    {
        return relay_cross_family(env, &embedded, &matched);
    }
    Err(Exit::drop(DropReason::NoFlow, connection_slot))
}

/// Returns the flow with this key, and the present next hop of its packets.
#[inline(always)]
fn lookup_flow<T: Family, E: PlatformFor<T>>(
    env: &mut E,
    key: &FlowKey<T>,
    length: u16,
) -> StageResult<Option<FlowMatch<T>>> {
    let Some(flow) = calls::lookup::<T, E>(env, key) else {
        return Ok(None);
    };
    let connection_slot = flow.entry().connection_slot();
    if let Some(reason) = end_reason(env, &flow) {
        return Err(Exit::drop(reason, connection_slot));
    }
    let backend_removed = Exit::drop(DropReason::BackendRemoved, connection_slot);
    let hop = next_hop::reachable_next_hop(env, &flow).ok_or(backend_removed)?;
    let egress = lookup_egress(env, hop)
        .ok_or(Exit::drop(DropReason::EgressUnavailable, connection_slot))?;
    // An error counts against the rate limit like any packet: the limit can't be evaded by sending errors.
    rate_limit::lookup_and_check_packet(env, connection_slot, flow.entry().direction(), length)?;
    Ok(Some(FlowMatch {
        flow,
        mac: hop.mac,
        egress_slot: hop.egress_slot,
        network: hop.network,
        egress,
    }))
}

/// Forwards the error within its family.
#[inline(always)]
fn relay_same_family<A: Family, T: Family, E: Platform>(
    env: &mut E,
    embedded: &EmbeddedPacket<A>,
    matched: &FlowMatch<T>,
) -> StageResult<Exit> {
    let entry = matched.flow.entry();
    let failed = Exit::drop(DropReason::BufferAdjustFailed, entry.connection_slot());
    let source = A::from_mapped(T::to_mapped(entry.source)).ok_or(failed)?;
    let destination = A::from_mapped(T::to_mapped(entry.destination)).ok_or(failed)?;
    let outer = A::Header::at(env, L3_OFFSET).ok_or(failed)?;
    if outer.hop_limit() <= 1 {
        return Err(Exit::drop(DropReason::TtlExpired, entry.connection_slot()));
    }
    if embedded.length > matched.egress.mtu.saturating_sub(A::Header::LEN_U16) {
        return Err(Exit::drop(
            DropReason::PacketTooBig,
            entry.connection_slot(),
        ));
    }
    restore_l4_header(env, embedded, embedded.length, entry).ok_or(failed)?;
    let inner = A::Header::at(env, embedded.icmp_offset.get() + Icmp::LEN).ok_or(failed)?;
    inner.update_addresses(destination, source);
    outer.update_addresses(source, destination);
    outer.decrement_ttl(A::TTL_DECREMENT_DELTA);
    if outer.is_fragmentable() {
        outer.set_id(identification::allocate_unfragmented(
            env,
            entry,
            A::ICMP,
            matched.network,
        ));
    }
    let icmp = Icmp::at(env, embedded.icmp_offset.get()).ok_or(failed)?;
    icmp.set_checksum(Be16::new(0));
    finish_error::<A, T, E>(
        env,
        matched,
        embedded.icmp_offset.get(),
        embedded.length,
        source,
        destination,
    )
}

/// Forwards the error in the other family. All headers in front of the embedded L4 header are written new.
#[inline(always)]
fn relay_cross_family<A: Family, T: Family, E: Platform>(
    env: &mut E,
    embedded: &EmbeddedPacket<A>,
    matched: &FlowMatch<T>,
) -> StageResult<Exit> {
    let entry = matched.flow.entry();
    let failed = Exit::drop(DropReason::BufferAdjustFailed, entry.connection_slot());
    let icmp = Icmp::at(env, embedded.icmp_offset.get()).ok_or(failed)?;
    let (old_kind, old_rest) = (icmp.type_and_code(), icmp.rest());
    let is_fragment = embedded.fragment.is_fragment();
    let translated = if A::ICMP == protocol::ICMP {
        icmp4_to_icmp6(old_kind, old_rest, matched.egress.mtu)
    } else {
        let growth = header_growth(is_fragment);
        icmp6_to_icmp4(old_kind, old_rest, matched.egress.mtu, growth)
    };
    let unsupported = Exit::drop(DropReason::IcmpUnsupported, entry.connection_slot());
    let (kind, rest) = translated.ok_or(unsupported)?;
    let outer = A::Header::at(env, L3_OFFSET).ok_or(failed)?;
    if outer.hop_limit() <= 1 {
        return Err(Exit::drop(DropReason::TtlExpired, entry.connection_slot()));
    }
    let inner = A::Header::at(env, embedded.icmp_offset.get() + Icmp::LEN).ok_or(failed)?;
    let old_length = len_without_extensions::<A>(old_kind, old_rest, embedded.length);
    // The bytes behind the embedded headers stay in place.
    let embedded_l4_len = old_length.saturating_sub(Icmp::LEN_U16 + embedded.header_len);
    if embedded_l4_len < EmbeddedL4Header::LEN_U16 {
        return Err(Exit::drop(DropReason::Malformed, entry.connection_slot()));
    }
    restore_l4_header(env, embedded, old_length, entry).ok_or(failed)?;
    let v6 = A::ICMP == protocol::ICMP;
    let (new_header_len, icmp_protocol) = if v6 {
        (Ipv6::LEN_U16, protocol::ICMPV6)
    } else {
        (Ipv4::LEN_U16, protocol::ICMP)
    };
    let new_inner_len = if v6 && is_fragment {
        new_header_len + FragmentHeader::LEN_U16
    } else {
        new_header_len
    };
    let length = embedded_l4_len + Icmp::LEN_U16 + new_inner_len;
    if length > matched.egress.mtu.saturating_sub(new_header_len) {
        return Err(Exit::drop(
            DropReason::PacketTooBig,
            entry.connection_slot(),
        ));
    }
    let (source, destination) = (T::to_mapped(entry.source), T::to_mapped(entry.destination));
    // As for any translated packet: a short one may be fragmented, and needs an identification for that.
    let has_id = !v6 && is_translated_fragmentable(length);
    let id = if has_id {
        identification::allocate_unfragmented(env, entry, icmp_protocol, matched.network)
    } else {
        0
    };
    let new_outer = IpHeaderFields {
        source,
        destination,
        traffic_class: outer.traffic_class(),
        hop_limit: outer.hop_limit() - 1,
        protocol: icmp_protocol,
        payload_len: length,
        fragment: Fragment {
            id: Be32::new(id),
            position: 0,
        },
        has_id,
    };
    let new_inner = IpHeaderFields {
        source: destination,
        destination: source,
        traffic_class: inner.traffic_class(),
        hop_limit: inner.hop_limit(),
        protocol: embedded.protocol,
        payload_len: inner
            .payload_len()
            .saturating_sub(embedded.header_len - A::Header::LEN_U16),
        fragment: embedded.fragment,
        has_id: is_fragment,
    };
    // The frame's start is moved so that the new headers end where the embedded L4 header begins.
    let new_l4_offset = Ethernet::LEN_U16 + new_header_len + Icmp::LEN_U16 + new_inner_len;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the offset behind a few headers"
    )]
    let old_l4_offset = env.forget_bounds(embedded.embedded_l4_offset.get() as u16);
    let shift = i32::from(old_l4_offset) - i32::from(new_l4_offset);
    if !env.adjust_head(shift) {
        return Err(failed);
    }
    let icmp_offset = L3_OFFSET + usize::from(new_header_len);
    if old_length != embedded.length && !env.resize(icmp_offset + usize::from(length)) {
        return Err(failed);
    }
    let result = if v6 {
        new_outer
            .emit_v6(env)
            .and_then(|()| new_inner.emit_v6_at(env, icmp_offset + Icmp::LEN))
    } else {
        new_outer
            .emit_v4(env)
            .and_then(|()| new_inner.emit_v4_at(env, icmp_offset + Icmp::LEN))
    };
    result.ok_or(failed)?;
    let icmp = Icmp::at(env, icmp_offset).ok_or(failed)?;
    icmp.set_type_and_code(kind);
    icmp.set_checksum(Be16::new(0));
    icmp.set_rest(rest);
    if v6 {
        finish_error::<V6, T, E>(env, matched, icmp_offset, length, source, destination)
    } else {
        let source = source.to_v4().ok_or(failed)?;
        let destination = destination.to_v4().ok_or(failed)?;
        finish_error::<V4, T, E>(env, matched, icmp_offset, length, source, destination)
    }
}

/// Writes the checksum of an error of family `F` and its MAC addresses, and returns its exit.
#[inline(always)]
fn finish_error<F: Family, T: Family, E: Platform>(
    env: &mut E,
    matched: &FlowMatch<T>,
    icmp_offset: usize,
    length: u16,
    source: F::Address,
    destination: F::Address,
) -> StageResult<Exit> {
    let failed = Exit::drop(
        DropReason::BufferAdjustFailed,
        matched.flow.entry().connection_slot(),
    );
    let checksum =
        icmp_checksum::<F, E>(env, icmp_offset, length, source, destination).ok_or(failed)?;
    Icmp::at(env, icmp_offset)
        .ok_or(failed)?
        .set_checksum(checksum);
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    ethernet.set_macs(matched.mac, matched.egress.mac);
    if !matched.flow.is_current() {
        let connection_slot = matched.flow.entry().connection_slot();
        return Err(Exit::drop(DropReason::ConfigRace, connection_slot));
    }
    env.count(Statistic::IcmpErrorsForwarded);
    let entry = matched.flow.entry();
    env.count_forwarded(
        entry.connection_slot(),
        entry.direction(),
        length + F::Header::LEN_U16,
    );
    Ok(Exit::redirect(matched.egress_slot))
}

/// Parses an ICMP error and forwards it to the sender of the embedded packet.
#[inline(always)]
pub(crate) fn relay_icmp_error<A: Family, E: PlatformFor<A>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
) -> StageResult<Exit> {
    let message = l4::parse_icmp_message(env, attachment, packet)?;
    forward_error(env, attachment, &message)
}
