//! What becomes of a packet.

use crate::DropReason;

/// The data path's decision about one packet, carried out already as far as its bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of ours: the host's own stack gets it, untouched.
    Pass,
    /// Gone, with a reason, and with the link slot of the endpoint it concerns
    /// ([`NO_LINK`](crate::maps::NO_LINK) where there is none).
    Drop(DropReason, u32),
    /// The packet was turned into the gateway's own answer (ARP, echo): out the way it came.
    Reply,
    /// The packet was turned into a TCP reset: out the way it came, counted like a drop.
    TcpReset(DropReason, u32),
    /// The packet was turned into an ICMP error: out the way it came, counted like a drop.
    IcmpError(DropReason, u32),
    /// Rewritten; out through the attachment in this slot of the device map.
    Redirect(u32),
}

/// How a stage ends the packet's way: with a verdict, or by passing it to a part of the way that is
/// apart (see [`Part`](crate::stages::Part)). [`Next`] in one word.
///
/// A word, since the kernel's verifier lets no value be copied that has a part unset, and the compiler
/// copies values of several parts in whichever way it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(u64);

/// A stage's result: go on with a value, or end the way.
pub type StageResult<T> = Result<T, Exit>;

/// What a [`Turn`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// Decided.
    Done(Verdict),
    /// Its sender is to be told that it was refused, for this reason; with the link slot.
    Reject(DropReason, u32),
    /// Its sender is to be told that packets may be no longer than this; with the link slot.
    PacketTooBig(u16, u32),
    /// Its sender is to be told that its time to live ran out; with the link slot.
    TtlExceeded(u32),
    /// No flow of its family has it: one between the families may.
    Nat46,
    /// It belongs to no flow: it may open one.
    OpenFlow,
    /// It is an ICMP error about another packet.
    IcmpRelated,
    /// A flow was opened for it: it is one of a known flow now.
    Reprocess,
    /// It goes the general way, from the start: the express way is not for it, or its flow was established
    /// meanwhile.
    SlowPath,
    /// No established flow has it, but one could be opened for it, or is being opened.
    NoEstablishedFlow,
}

impl Exit {
    /// Untouched, to the host.
    pub const PASS: Self = Self::new(ExitKind::Done(Verdict::Pass));
    /// Turned into an answer.
    pub const REPLY: Self = Self::new(ExitKind::Done(Verdict::Reply));
    /// See [`Next::Translate`].
    pub const NAT46: Self = Self::new(ExitKind::Nat46);
    /// See [`Next::Open`].
    pub const OPEN_FLOW: Self = Self::new(ExitKind::OpenFlow);
    /// See [`Next::Relay`].
    pub const ICMP_RELATED: Self = Self::new(ExitKind::IcmpRelated);
    /// See [`Next::Again`].
    pub const REPROCESS: Self = Self::new(ExitKind::Reprocess);

    /// See [`Next::Way`].
    pub const SLOW_PATH: Self = Self::new(ExitKind::SlowPath);
    /// See [`Next::Missed`].
    pub const NO_ESTABLISHED_FLOW: Self = Self::new(ExitKind::NoEstablishedFlow);

    /// Dropped in silence.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason, connection_slot: u32) -> Self {
        Self(1 | (reason as u64) << 8 | (connection_slot as u64) << 32)
    }

    /// See [`Next::Refuse`].
    #[inline(always)]
    #[must_use]
    pub const fn reject(reason: DropReason, connection_slot: u32) -> Self {
        Self(6 | (reason as u64) << 8 | (connection_slot as u64) << 32)
    }

    /// See [`Next::TooBig`].
    #[inline(always)]
    #[must_use]
    pub const fn packet_too_big(max_len: u16, connection_slot: u32) -> Self {
        Self(7 | (max_len as u64) << 16 | (connection_slot as u64) << 32)
    }

    /// See [`Next::Expired`].
    #[inline(always)]
    #[must_use]
    pub const fn ttl_exceeded(connection_slot: u32) -> Self {
        Self(8 | (connection_slot as u64) << 32)
    }

    /// Out through the attachment in this slot.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(egress_slot: u32) -> Self {
        Self(4 | (egress_slot as u64) << 32)
    }

    /// The slot of the attachment that it leads out by, if it does.
    #[inline(always)]
    #[must_use]
    pub const fn redirect_slot(self) -> Option<u32> {
        if self.0 & 0xff == 4 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// In one word.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: ExitKind) -> Self {
        match kind {
            ExitKind::Done(Verdict::Pass) => Self(0),
            ExitKind::Done(Verdict::Drop(reason, connection_slot)) => {
                Self::drop(reason, connection_slot)
            }
            ExitKind::Done(Verdict::Reply) => Self(2),
            ExitKind::Done(Verdict::TcpReset(reason, connection_slot)) => {
                Self(3 | (reason as u64) << 8 | (connection_slot as u64) << 32)
            }
            ExitKind::Done(Verdict::Redirect(slot)) => Self::redirect(slot),
            ExitKind::Done(Verdict::IcmpError(reason, connection_slot)) => {
                Self(5 | (reason as u64) << 8 | (connection_slot as u64) << 32)
            }
            ExitKind::Reject(reason, connection_slot) => Self::reject(reason, connection_slot),
            ExitKind::PacketTooBig(max_len, connection_slot) => {
                Self::packet_too_big(max_len, connection_slot)
            }
            ExitKind::TtlExceeded(connection_slot) => Self::ttl_exceeded(connection_slot),
            ExitKind::Nat46 => Self(9),
            ExitKind::OpenFlow => Self(10),
            ExitKind::IcmpRelated => Self(11),
            ExitKind::Reprocess => Self(12),
            ExitKind::SlowPath => Self(13),
            ExitKind::NoEstablishedFlow => Self(14),
        }
    }

    /// What it says.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it are wanted")]
    pub const fn kind(self) -> ExitKind {
        let (max_len, slot) = ((self.0 >> 16) as u16, (self.0 >> 32) as u32);
        let reason = DropReason::from_byte((self.0 >> 8) as u8);
        match self.0 & 0xff {
            0 => ExitKind::Done(Verdict::Pass),
            1 => ExitKind::Done(Verdict::Drop(reason, slot)),
            2 => ExitKind::Done(Verdict::Reply),
            3 => ExitKind::Done(Verdict::TcpReset(reason, slot)),
            5 => ExitKind::Done(Verdict::IcmpError(reason, slot)),
            6 => ExitKind::Reject(reason, slot),
            7 => ExitKind::PacketTooBig(max_len, slot),
            8 => ExitKind::TtlExceeded(slot),
            9 => ExitKind::Nat46,
            10 => ExitKind::OpenFlow,
            11 => ExitKind::IcmpRelated,
            12 => ExitKind::Reprocess,
            13 => ExitKind::SlowPath,
            14 => ExitKind::NoEstablishedFlow,
            _ => ExitKind::Done(Verdict::Redirect(slot)),
        }
    }

    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From what [`Turn::to_bits`] gave.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_round_trip_through_bits() {
        let mut kinds = vec![
            ExitKind::Done(Verdict::Pass),
            ExitKind::Done(Verdict::Reply),
            ExitKind::Done(Verdict::Redirect(7)),
            ExitKind::PacketTooBig(1_480, 9),
            ExitKind::TtlExceeded(3),
            ExitKind::Nat46,
            ExitKind::OpenFlow,
            ExitKind::IcmpRelated,
            ExitKind::Reprocess,
            ExitKind::SlowPath,
            ExitKind::NoEstablishedFlow,
        ];
        for reason in DropReason::ALL {
            kinds.push(ExitKind::Done(Verdict::Drop(*reason, u32::MAX)));
            kinds.push(ExitKind::Done(Verdict::TcpReset(*reason, 65_535)));
            kinds.push(ExitKind::Done(Verdict::IcmpError(*reason, 0)));
            kinds.push(ExitKind::Reject(*reason, 12));
        }
        for kind in kinds {
            let exit = Exit::new(kind);
            assert_eq!(exit.kind(), kind);
            let slot = exit.redirect_slot();
            assert_eq!(
                slot.is_some(),
                matches!(kind, ExitKind::Done(Verdict::Redirect(_)))
            );
        }
    }
}
