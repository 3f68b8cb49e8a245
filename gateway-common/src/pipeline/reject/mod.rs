//! What is not forwarded is answered, so that no peer waits for what will not come: a TCP segment
//! with a reset, a datagram with an ICMP error, and what is too large or too old with the error that
//! says so. Not too often: see [`super::limit`].
//!
//! A part apart: the packet is as it came in, and is read once more.

pub(crate) mod icmp_error;
mod tcp_reset;

use crate::{
    drop_reason::DropReason,
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
    verdict::{Exit, ExitKind, StageResult, Verdict},
};

/// What is told, and why.
#[derive(Clone, Copy)]
pub(crate) struct Reject {
    pub(crate) icmp_reason: Option<IcmpReason>,
    pub(crate) reason: DropReason,
    pub(crate) connection_slot: u32,
}

impl Reject {
    /// What the turn wants told; none if it is no refusal.
    #[inline(always)]
    pub(crate) const fn from_exit(exit: Exit) -> Option<Self> {
        let (icmp_reason, reason, connection_slot) = match exit.kind() {
            ExitKind::Reject(reason, connection_slot) => (None, reason, connection_slot),
            ExitKind::PacketTooBig(mtu, connection_slot) => (
                Some(IcmpReason::PacketTooBig(mtu)),
                DropReason::PacketTooBig,
                connection_slot,
            ),
            ExitKind::TtlExceeded(connection_slot) => (
                Some(IcmpReason::TimeExceeded),
                DropReason::TtlExpired,
                connection_slot,
            ),
            _ => return None,
        };
        Some(Self {
            icmp_reason,
            reason,
            connection_slot,
        })
    }
}

/// Turns the packet into what answers it, or drops it.
#[inline(always)]
pub(crate) fn send_reject<F: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
    reject: Reject,
) -> Verdict {
    let Reject {
        icmp_reason,
        reason,
        connection_slot,
    } = reject;
    // Later fragments are not answered (RFC 1122, section 3.2.2), nor is ICMP.
    if packet.fragment.is_later_fragment() || packet.protocol == F::ICMP {
        return Verdict::Drop(reason, connection_slot);
    }
    let Ok(ports) = l4::parse_ports(env, attachment, packet) else {
        return Verdict::Drop(reason, connection_slot);
    };
    let Ok(l4_packet) = L4Packet::new(env, attachment, packet, ports) else {
        return Verdict::Drop(reason, connection_slot);
    };
    match (icmp_reason, l4_packet.l4_header(env)) {
        (Some(icmp_reason), _) => {
            icmp_error::send_error(env, &l4_packet, icmp_reason, reason, connection_slot)
        }
        (None, L4Header::Tcp(tcp)) => {
            tcp_reset::send_reset(env, &l4_packet, tcp, reason, connection_slot)
        }
        (None, _) => icmp_error::send_error(
            env,
            &l4_packet,
            icmp_reason_for(reason),
            reason,
            connection_slot,
        ),
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

/// The sender is told why its packet goes no further; the argument is the turn that wants it told.
#[inline(always)]
pub(crate) fn reject<A: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
    argument: u64,
) -> StageResult<Exit> {
    let config_race = Exit::drop(DropReason::ConfigRace, NO_CONNECTION);
    let reject = Reject::from_exit(Exit::from_bits(argument)).ok_or(config_race)?;
    let verdict = send_reject(env, attachment, packet, reject);
    Ok(Exit::new(ExitKind::Done(verdict)))
}
