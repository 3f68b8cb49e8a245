//! Stage 9: the packet leaves, if the way out is there and the packet fits it. Whatever the kernel
//! would drop behind our back (an interface that is gone, a frame over the MTU) is dropped here,
//! with a reason, and its sender is told where that helps.

use crate::{
    DropReason, Environment, Family, Step, Turn,
    family::Header as _,
    flow::FlowRef,
    maps::{Attachment, Egress},
    packet::{Ipv4, Ipv6, protocol},
    stages::{
        fragment, identification, identification::Identification, limit, next_hop::NextHop,
        rewrite, transport::Segment,
    },
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
    /// The identification that it leaves with.
    pub(super) identification: Identification,
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
    let identification = identify(env, segment, flow)?;
    let way = Way {
        flow,
        hop,
        egress,
        segment_size: segment_size::<A, E>(env, attachment, segment, most),
        identification,
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
        fragment::note(env, segment, identification);
    }
    Ok(Turn::redirect(hop.egress))
}

/// Returns the identification that the segment leaves with. Nearly all packets keep theirs.
#[inline(always)]
fn identify<A: Family, T: Family, E: Environment>(
    env: &E,
    segment: &Segment<A>,
    flow: &FlowRef<T>,
) -> Step<Identification> {
    let fixed = flow.fixed();
    // Whole packets that IPv6 is translated into forbid fragmentation.
    if !segment.fragment.is_part() && !segment.header(env)?.fragmentable() {
        return Ok(Identification::KEPT);
    }
    let identification = identification::of(env, segment, fixed);
    match identification.refused() {
        Some(reason) => Err(Turn::drop(reason, fixed.link)),
        None => Ok(identification),
    }
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
