//! Sending: the checks of the egress, then the rewriting. Packets that the kernel would drop after a redirect without
//! a reason (interface gone, frame over the MTU) are dropped here with one, and their sender gets an ICMP error where
//! that helps.

use crate::{
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{FlowHandle, FlowRef, table},
    maps::{Attachment, NO_CONNECTION},
    packet::{Ethernet, protocol},
    pipeline::{
        conntrack::{calls, return_path},
        forward::{
            decision::ForwardingDecision,
            identification::{self, Identification},
            mtu::{is_translated_fragmentable, max_packet_len, max_segment_size, packet_too_big},
            nat46,
            next_hop::{NextHop, lookup_egress, lookup_next_hop},
            rewrite,
        },
        ingress::{fragment, ip_packet::IpPacket, l4::L4Packet, parse_l4_packet},
        rate_limit,
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Forwards a packet by its flow.
#[inline(always)]
pub(crate) fn forward_packet<A: Family, T: Family, E: PlatformFor<A> + PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
    flow: FlowHandle,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    // The flow may have been replaced since it was found.
    let flow = table::by_handle::<T, E>(env, flow)
        .ok_or(Exit::drop(DropReason::ConfigRace, NO_CONNECTION))?;
    let hop = lookup_next_hop(env, &flow)?;
    send_packet(env, attachment, &l4_packet, &flow, hop)
}

/// Rewrites a packet by its flow and redirects it to its next hop.
#[inline(always)]
fn send_packet<A: Family, T: Family, E: PlatformFor<A> + PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
    next_hop: NextHop,
) -> StageResult<Exit> {
    let entry = flow.entry();
    let connection_slot = entry.connection_slot();
    let egress = lookup_egress(env, next_hop)
        .ok_or(Exit::drop(DropReason::EgressUnavailable, connection_slot))?;
    let max_len = max_packet_len::<A>(egress.mtu, entry.is_nat46(), packet);
    if packet.length > max_len {
        return Err(packet_too_big::<A>(packet.length, max_len, connection_slot));
    }
    if packet.header(env)?.hop_limit() <= 1 {
        return Err(Exit::ttl_exceeded(connection_slot));
    }
    rate_limit::lookup_and_check_packet(env, connection_slot, entry.direction(), packet.length)?;
    let identification = select_identification(env, packet, flow, next_hop)?;
    let new_path = Ethernet::at(env, 0)
        .map(|ethernet| return_path::of_packet(ethernet, attachment.slot))
        .filter(|path| return_path::has_changed(flow, *path));
    // Replies to such an address would reach everybody, or nobody. A path that the flow has already is that of a host.
    if new_path.is_some_and(|path| !return_path::is_of_host(path, attachment.mac)) {
        return Err(Exit::drop(DropReason::MartianSource, connection_slot));
    }
    let decision = ForwardingDecision {
        flow,
        next_hop,
        egress,
        max_segment_size: max_segment_size::<A, E>(env, attachment, packet, max_len),
        identification,
    };
    // The table of IPv4 has no NAT46 flows.
    if T::ICMP == protocol::ICMPV6 && entry.is_nat46() {
        nat46::translate_packet(env, packet, &decision)?;
    } else {
        rewrite::rewrite_packet(env, packet, &decision)?;
    }
    if !flow.is_current() {
        return Err(Exit::drop(DropReason::ConfigRace, connection_slot));
    }
    // Only now, since a packet that is dropped must not move the replies.
    if let Some(path) = new_path {
        calls::set_return_path(env, flow, path);
    }
    flow.touch(env.now());
    env.count_forwarded(connection_slot, entry.direction(), packet.length);
    if packet.fragment.is_first_fragment() {
        let (id, address_hash) = (identification.id(), identification.address_hash());
        fragment::record_first_fragment(env, packet, id, address_hash);
    }
    Ok(Exit::redirect(next_hop.egress_slot))
}

/// Returns the identification that the packet leaves with. Nearly all packets keep theirs.
#[inline(always)]
fn select_identification<A: Family, T: Family, E: PlatformFor<A>>(
    env: &E,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
    next_hop: NextHop,
) -> StageResult<Identification> {
    let entry = flow.entry();
    // The table of IPv4 has no NAT46 flows.
    let becomes_v4 = A::ICMP == protocol::ICMPV6 && T::ICMP == protocol::ICMPV6 && entry.is_nat46();
    let is_fragmentable = if becomes_v4 {
        is_translated_fragmentable(packet.payload_len)
    } else {
        packet.header(env)?.is_fragmentable()
    };
    if !packet.fragment.is_fragment() && !is_fragmentable {
        return Ok(Identification::UNCHANGED);
    }
    let identification = identification::for_packet(env, packet, entry, next_hop.network);
    match identification.drop_reason() {
        Some(reason) => Err(Exit::drop(reason, entry.connection_slot())),
        None => Ok(identification),
    }
}
