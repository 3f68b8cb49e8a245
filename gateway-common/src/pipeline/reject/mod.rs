//! Rejects: answers to packets that are not forwarded, so that their senders need not wait for a timeout.
//!
//! ```text
//!   TCP segment                     TCP reset
//!   UDP datagram                    ICMP error: port or host unreachable, administratively prohibited
//!   packet over the MTU             ICMP error: fragmentation needed, packet too big
//!   packet whose TTL expires        ICMP error: time exceeded
//! ```
//!
//! Runs as a subprogram of its own, and parses the packet again, which is unchanged. The number of rejects is limited
//! by reject budgets, which path MTU errors have apart from refusals: see [`rate_limit`](crate::pipeline::rate_limit).

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
        rate_limit::RejectBudget,
        reject::icmp_error::IcmpReason,
    },
    platform::Platform,
    subprogram::{Exit, ExitKind, StageResult},
    verdict::Verdict,
};

/// A packet's rejection.
#[derive(Clone, Copy)]
pub(crate) struct Reject {
    /// The ICMP error to send. Nothing if the answer follows from the protocol and the drop reason.
    pub(crate) icmp_reason: Option<IcmpReason>,
    pub(crate) attribution: Attribution,
}

impl Reject {
    /// Returns the rejection that an exit requests, if it requests one.
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
    // Neither later fragments (RFC 1122, section 3.2.2) nor ICMP messages are answered.
    if packet.fragment.is_later_fragment() || packet.protocol == F::ICMP {
        return Verdict::Drop(attribution);
    }
    let Ok(ports) = l4::parse_ports(env, attachment, packet) else {
        return Verdict::Drop(attribution);
    };
    let Ok(l4_packet) = L4Packet::new(env, attachment, packet, ports) else {
        return Verdict::Drop(attribution);
    };
    let budget = RejectBudget::new(attachment, attribution.connection_slot);
    match (icmp_reason, l4_packet.l4_header(env)) {
        (Some(icmp_reason), _) => {
            icmp_error::send_error(env, &l4_packet, icmp_reason, budget, attribution)
        }
        (None, L4Header::Tcp(tcp)) => {
            tcp_reset::send_reset(env, &l4_packet, tcp, budget, attribution)
        }
        (None, _) => {
            let icmp_reason = icmp_reason_for(attribution.reason);
            icmp_error::send_error(env, &l4_packet, icmp_reason, budget, attribution)
        }
    }
}

/// Returns the ICMP error that answers a datagram with this drop reason.
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

/// Rejects the packet as the exit requests.
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
