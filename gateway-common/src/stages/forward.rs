//! Stage 9: the packet leaves, if the way out is there and the packet fits it. Whatever the kernel
//! would drop behind our back (an interface that is gone, a frame over the MTU) is dropped here,
//! with a reason, and its sender is told where that helps.

use crate::{
    DropReason, Environment, Family, Step, Turn,
    family::Header as _,
    flow::FlowRef,
    maps::{Attachment, DatagramKey, Egress, Ports},
    packet::{Ipv4, Ipv6, protocol},
    stages::{limit, next_hop::NextHop, rewrite, transport::Segment},
};

/// What an IPv6 header has more bytes than an IPv4 one.
pub(super) const GROWTH: u16 = Ipv6::OCTETS - Ipv4::OCTETS;

/// The smallest MTU of IPv6 (RFC 8200, section 5).
pub(super) const SMALLEST_MTU_V6: u16 = 1_280;

/// Where a segment goes, and as what.
pub(super) struct Way<'a, T: Family> {
    /// The segment's flow.
    pub(super) flow: &'a FlowRef<T>,
    /// The station that it goes to.
    pub(super) hop: NextHop,
    /// The interface that it leaves by.
    pub(super) egress: Egress,
    /// The largest segment that a SYN may ask for.
    pub(super) segment_size: u16,
}

/// The egress towards a flow's next hop, if the flow's network is still behind it: its slot may have
/// been given to another one since the flow was opened.
#[inline(always)]
pub(super) fn egress<F: Family, E: Environment>(
    env: &E,
    flow: &FlowRef<F>,
    hop: NextHop,
) -> Option<Egress> {
    env.egress(hop.egress)
        .filter(|egress| egress.network == flow.fixed().network)
}

/// Rewrites the segment by its flow and sends it on.
#[inline(always)]
pub(super) fn forward<A: Family, T: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<A>,
    flow: &FlowRef<T>,
    hop: NextHop,
) -> Step<Turn> {
    let fixed = flow.fixed();
    let link = fixed.link;
    let egress = egress(env, flow, hop).ok_or(Turn::drop(DropReason::EgressGone, link))?;
    let most = fits::<A>(egress.mtu, fixed.translated(), segment);
    if segment.length > most {
        return Err(Turn::too_big(most, link));
    }
    if segment.header(env)?.hop_limit() <= 1 {
        return Err(Turn::expired(link));
    }
    limit::packet(env, link, fixed.direction(), segment.length)?;
    let way = Way {
        flow,
        hop,
        egress,
        segment_size: segment_size::<A, E>(env, attachment, segment, most),
    };
    // IPv4's own table has none that are translated.
    if T::ICMP == protocol::ICMPV6 && fixed.translated() {
        super::translate::segment(env, segment, &way)?;
    } else {
        rewrite::rewrite(env, segment, &way)?;
    }
    flow.touch(env.now());
    env.count_crossing(link, fixed.direction(), segment.length);
    if segment.fragment.is_first() {
        note_parts(env, segment);
    }
    Ok(Turn::redirect(hop.egress))
}

/// Notes whose the fragments are that follow this first one. A function of its own for its stack.
#[inline(never)]
fn note_parts<A: Family, E: Environment>(env: &mut E, segment: &Segment<A>) {
    let key = DatagramKey::<A> {
        network: segment.key.realm.network(),
        source: segment.key.source,
        destination: segment.key.destination,
        id: segment.fragment.id.raw(),
        protocol: segment.protocol.into(),
    };
    let ports = Ports {
        source: segment.key.ports.source(),
        destination: segment.key.ports.destination(),
        seen: env.now().0,
    };
    A::note_fragments(env, &key, &ports);
}

/// The longest packet of this family that fits an interface, once it is what leaves by it.
#[inline(always)]
fn fits<A: Family>(mtu: u16, translated: bool, segment: &Segment<A>) -> u16 {
    if !translated {
        return mtu;
    }
    if A::ICMP == protocol::ICMPV6 {
        let most = mtu.saturating_add(GROWTH);
        return if most < SMALLEST_MTU_V6 {
            SMALLEST_MTU_V6
        } else {
            most
        };
    }
    let growth = if segment.fragment.is_part() {
        GROWTH + crate::packet::FragmentHeader::OCTETS
    } else {
        GROWTH
    };
    mtu.saturating_sub(growth)
}

/// The largest TCP segment that fits both networks. Only a SYN asks, so only for one it is told.
#[inline(always)]
fn segment_size<A: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    segment: &Segment<A>,
    most: u16,
) -> u16 {
    if !segment.synchronizes(env) {
        return u16::MAX;
    }
    let here = env
        .egress(attachment.slot)
        .map_or(most, |egress| egress.mtu);
    let most = if here < most { here } else { most };
    most.saturating_sub(A::Header::OCTETS + crate::packet::Tcp::OCTETS)
}
