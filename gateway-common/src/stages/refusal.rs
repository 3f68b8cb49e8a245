//! What is not forwarded is answered, so that no peer waits for what will not come: a TCP segment
//! with a reset, a datagram with an ICMP error, and what is too large or too old with the error that
//! says so. Not too often: see [`super::limit`].
//!
//! A part apart: the packet is as it came in, and is read once more.

use crate::{
    DropReason, Environment, Family, Next, Turn, Verdict,
    maps::Attachment,
    stages::{
        icmp_error::{self, Cause},
        parse::Packet,
        reset, transport,
        transport::{Segment, Transport},
    },
};

/// What is told, and why.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub(super) cause: Option<Cause>,
    pub(super) reason: DropReason,
    pub(super) link: u32,
}

impl Refusal {
    /// What the turn wants told; none if it is no refusal.
    #[inline(always)]
    pub(super) const fn of(turn: Turn) -> Option<Self> {
        let (cause, reason, link) = match turn.next() {
            Next::Refuse(reason, link) => (None, reason, link),
            Next::TooBig(most, link) => (Some(Cause::TooBig(most)), DropReason::PacketTooBig, link),
            Next::Expired(link) => (Some(Cause::Expired), DropReason::TtlExpired, link),
            _ => return None,
        };
        Some(Self {
            cause,
            reason,
            link,
        })
    }
}

/// Turns the packet into what answers it, or drops it.
#[inline(always)]
pub(super) fn answer<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<F>,
    refusal: Refusal,
) -> Verdict {
    let Refusal {
        cause,
        reason,
        link,
    } = refusal;
    // Later fragments are not answered (RFC 1122, section 3.2.2), nor is ICMP.
    if packet.fragment.is_later() || packet.protocol == F::ICMP {
        return Verdict::Drop(reason, link);
    }
    let Ok(ports) = transport::ports(env, attachment, packet) else {
        return Verdict::Drop(reason, link);
    };
    let Ok(segment) = Segment::new(env, attachment, packet, ports) else {
        return Verdict::Drop(reason, link);
    };
    match (cause, segment.transport(env)) {
        (Some(cause), _) => icmp_error::answer(env, &segment, cause, reason, link),
        (None, Transport::Tcp(tcp)) => reset::answer(env, &segment, tcp, reason, link),
        (None, _) => icmp_error::answer(env, &segment, told(reason), reason, link),
    }
}

/// What a refused datagram's sender is told.
#[inline(always)]
const fn told(reason: DropReason) -> Cause {
    match reason {
        DropReason::ConnectionNotApproved | DropReason::ConnectionRevoked => Cause::Prohibited,
        DropReason::NoBackend | DropReason::BackendGone | DropReason::FamilyMismatch => Cause::Host,
        _ => Cause::Port,
    }
}
