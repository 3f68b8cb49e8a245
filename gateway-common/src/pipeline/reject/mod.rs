//! What is not forwarded is answered, so that no peer waits for what will not come: a TCP segment
//! with a reset, a datagram with an ICMP error, and what is too large or too old with the error that
//! says so. Not too often: see [`rate_limit`](crate::pipeline::rate_limit).
//!
//! A part apart: the packet is as it came in, and is read once more.

pub(crate) mod icmp_error;
mod tcp_reset;

use crate::{
    drop_reason::{Attribution, DropReason},
    family::Family,
    maps::{Attachment, NO_CONNECTION},
    pipeline::{
        ingress::{
            ip_packet::IpPacket,
            l4::{self, L4Header, L4Packet},
        },
        reject::icmp_error::IcmpReason,
    },
    platform::Platform,
    subprogram::{Exit, ExitKind, StageResult},
    verdict::Verdict,
};

/// A packet's rejection.
#[derive(Clone, Copy)]
pub(crate) struct Reject {
    /// The ICMP error to send, or nothing if it follows from the protocol and the drop reason.
    pub(crate) icmp_reason: Option<IcmpReason>,
    pub(crate) attribution: Attribution,
}

impl Reject {
    /// Returns the rejection that an exit demands, if it demands one.
    #[inline(always)]
    pub(crate) const fn from_exit(exit: Exit) -> Option<Self> {
        let (icmp_reason, attribution) = match exit.kind() {
            ExitKind::Reject(attribution) => (None, attribution),
            ExitKind::PacketTooBig(mtu, connection_slot) => (
                Some(IcmpReason::PacketTooBig(mtu)),
                Attribution::new(DropReason::PacketTooBig, connection_slot),
            ),
            ExitKind::TtlExceeded(connection_slot) => (
                Some(IcmpReason::TimeExceeded),
                Attribution::new(DropReason::TtlExpired, connection_slot),
            ),
            _ => return None,
        };
        Some(Self {
            icmp_reason,
            attribution,
        })
    }
}

/// Replaces the packet by its TCP reset or ICMP error, or drops it.
#[inline(always)]
pub(crate) fn send_reject<F: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
    reject: Reject,
) -> Verdict {
    let Reject {
        icmp_reason,
        attribution,
    } = reject;
    // Later fragments are not answered (RFC 1122, section 3.2.2), nor is ICMP.
    if packet.fragment.is_later_fragment() || packet.protocol == F::ICMP {
        return Verdict::Drop(attribution);
    }
    let Ok(ports) = l4::parse_ports(env, attachment, packet) else {
        return Verdict::Drop(attribution);
    };
    let Ok(l4_packet) = L4Packet::new(env, attachment, packet, ports) else {
        return Verdict::Drop(attribution);
    };
    match (icmp_reason, l4_packet.l4_header(env)) {
        (Some(icmp_reason), _) => icmp_error::send_error(env, &l4_packet, icmp_reason, attribution),
        (None, L4Header::Tcp(tcp)) => tcp_reset::send_reset(env, &l4_packet, tcp, attribution),
        (None, _) => {
            let icmp_reason = icmp_reason_for(attribution.reason);
            icmp_error::send_error(env, &l4_packet, icmp_reason, attribution)
        }
    }
}

/// What a refused datagram's sender is told.
#[inline(always)]
const fn icmp_reason_for(reason: DropReason) -> IcmpReason {
    match reason {
        DropReason::ConnectionNotApproved | DropReason::ConnectionRevoked => {
            IcmpReason::AdminProhibited
        }
        DropReason::NoBackend | DropReason::BackendRemoved | DropReason::FamilyMismatch => {
            IcmpReason::HostUnreachable
        }
        _ => IcmpReason::PortUnreachable,
    }
}

/// Answers the packet as the exit demands.
#[inline(always)]
pub(crate) fn run<A: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
    exit: Exit,
) -> StageResult<Exit> {
    let config_race = Exit::drop(DropReason::ConfigRace, NO_CONNECTION);
    let reject = Reject::from_exit(exit).ok_or(config_race)?;
    let verdict = send_reject(env, attachment, packet, reject);
    Ok(Exit::new(ExitKind::Done(verdict)))
}
