//! Stage 9: the packet leaves, if the way out is there and the packet fits it. Whatever the kernel
//! would drop behind our back (an interface that is gone, a frame over the MTU) is dropped here,
//! with a reason.

use crate::{
    DropReason, Environment, Family, Step, Verdict,
    family::Header as _,
    flow::FlowRef,
    stages::{next_hop::NextHop, parse::Segment, rewrite},
};

/// Rewrites the segment by its flow and sends it on.
#[inline(always)]
pub(super) fn forward<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    hop: &NextHop,
) -> Step<Verdict> {
    let fixed = flow.fixed();
    let link = fixed.link;
    let egress = env
        .egress(hop.egress)
        // The slot may have been given to another network since the flow was opened.
        .filter(|egress| egress.network == fixed.network)
        .ok_or(Verdict::Drop(DropReason::EgressGone, link))?;
    if segment.length > egress.mtu {
        return Err(Verdict::Drop(DropReason::PacketTooBig, link));
    }
    if segment.header.hop_limit() <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExpired, link));
    }
    rewrite::rewrite(env, segment, flow, egress.mac, hop.mac)?;
    flow.touch(env.now());
    env.count_crossing(link, fixed.direction(), segment.length);
    Ok(Verdict::Redirect(hop.egress))
}
