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
    Reset(DropReason, u32),
    /// The packet was turned into an ICMP error: out the way it came, counted like a drop.
    Error(DropReason, u32),
    /// Rewritten; out through the attachment in this slot of the device map.
    Redirect(u32),
}

/// How a stage ends the packet's way: with a verdict, or by passing it to a part of the way that is
/// apart (see [`Part`](crate::stages::Part)). [`Next`] in one word.
///
/// A word, since the kernel's verifier lets no value be copied that has a part unset, and the compiler
/// copies values of several parts in whichever way it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u64);

/// A stage's result: go on with a value, or end the way.
pub type Step<T> = Result<T, Turn>;

/// What a [`Turn`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Decided.
    Done(Verdict),
    /// Its sender is to be told that it was refused, for this reason; with the link slot.
    Refuse(DropReason, u32),
    /// Its sender is to be told that packets may be no longer than this; with the link slot.
    TooBig(u16, u32),
    /// Its sender is to be told that its time to live ran out; with the link slot.
    Expired(u32),
    /// No flow of its family has it: one between the families may.
    Translate,
    /// It belongs to no flow: it may open one.
    Open,
    /// It is an ICMP error about another packet.
    Relay,
    /// A flow was opened for it: it is one of a known flow now.
    Again,
    /// It goes the general way, from the start: the express way is not for it, or its flow was established
    /// meanwhile.
    Way,
    /// No established flow has it, but one could be opened for it, or is being opened.
    Missed,
}

impl Turn {
    /// Untouched, to the host.
    pub const PASS: Self = Self::new(Next::Done(Verdict::Pass));
    /// Turned into an answer.
    pub const REPLY: Self = Self::new(Next::Done(Verdict::Reply));
    /// See [`Next::Translate`].
    pub const TRANSLATE: Self = Self::new(Next::Translate);
    /// See [`Next::Open`].
    pub const OPEN: Self = Self::new(Next::Open);
    /// See [`Next::Relay`].
    pub const RELAY: Self = Self::new(Next::Relay);
    /// See [`Next::Again`].
    pub const AGAIN: Self = Self::new(Next::Again);

    /// See [`Next::Way`].
    pub const WAY: Self = Self::new(Next::Way);
    /// See [`Next::Missed`].
    pub const MISSED: Self = Self::new(Next::Missed);

    /// Dropped in silence.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason, link: u32) -> Self {
        Self(1 | (reason as u64) << 8 | (link as u64) << 32)
    }

    /// See [`Next::Refuse`].
    #[inline(always)]
    #[must_use]
    pub const fn refuse(reason: DropReason, link: u32) -> Self {
        Self(6 | (reason as u64) << 8 | (link as u64) << 32)
    }

    /// See [`Next::TooBig`].
    #[inline(always)]
    #[must_use]
    pub const fn too_big(most: u16, link: u32) -> Self {
        Self(7 | (most as u64) << 16 | (link as u64) << 32)
    }

    /// See [`Next::Expired`].
    #[inline(always)]
    #[must_use]
    pub const fn expired(link: u32) -> Self {
        Self(8 | (link as u64) << 32)
    }

    /// Out through the attachment in this slot.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(slot: u32) -> Self {
        Self(4 | (slot as u64) << 32)
    }

    /// The slot of the attachment that it leads out by, if it does.
    #[inline(always)]
    #[must_use]
    pub const fn redirects(self) -> Option<u32> {
        if self.0 & 0xff == 4 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// In one word.
    #[inline(always)]
    #[must_use]
    pub const fn new(next: Next) -> Self {
        match next {
            Next::Done(Verdict::Pass) => Self(0),
            Next::Done(Verdict::Drop(reason, link)) => Self::drop(reason, link),
            Next::Done(Verdict::Reply) => Self(2),
            Next::Done(Verdict::Reset(reason, link)) => {
                Self(3 | (reason as u64) << 8 | (link as u64) << 32)
            }
            Next::Done(Verdict::Redirect(slot)) => Self::redirect(slot),
            Next::Done(Verdict::Error(reason, link)) => {
                Self(5 | (reason as u64) << 8 | (link as u64) << 32)
            }
            Next::Refuse(reason, link) => Self::refuse(reason, link),
            Next::TooBig(most, link) => Self::too_big(most, link),
            Next::Expired(link) => Self::expired(link),
            Next::Translate => Self(9),
            Next::Open => Self(10),
            Next::Relay => Self(11),
            Next::Again => Self(12),
            Next::Way => Self(13),
            Next::Missed => Self(14),
        }
    }

    /// What it says.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it are wanted")]
    pub const fn next(self) -> Next {
        let (more, slot) = ((self.0 >> 16) as u16, (self.0 >> 32) as u32);
        let reason = DropReason::from_byte((self.0 >> 8) as u8);
        match self.0 & 0xff {
            0 => Next::Done(Verdict::Pass),
            1 => Next::Done(Verdict::Drop(reason, slot)),
            2 => Next::Done(Verdict::Reply),
            3 => Next::Done(Verdict::Reset(reason, slot)),
            5 => Next::Done(Verdict::Error(reason, slot)),
            6 => Next::Refuse(reason, slot),
            7 => Next::TooBig(more, slot),
            8 => Next::Expired(slot),
            9 => Next::Translate,
            10 => Next::Open,
            11 => Next::Relay,
            12 => Next::Again,
            13 => Next::Way,
            14 => Next::Missed,
            _ => Next::Done(Verdict::Redirect(slot)),
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
    fn a_word_holds_each_turn() {
        let mut turns = vec![
            Next::Done(Verdict::Pass),
            Next::Done(Verdict::Reply),
            Next::Done(Verdict::Redirect(7)),
            Next::TooBig(1_480, 9),
            Next::Expired(3),
            Next::Translate,
            Next::Open,
            Next::Relay,
            Next::Again,
            Next::Way,
            Next::Missed,
        ];
        for reason in DropReason::ALL {
            turns.push(Next::Done(Verdict::Drop(*reason, u32::MAX)));
            turns.push(Next::Done(Verdict::Reset(*reason, 65_535)));
            turns.push(Next::Done(Verdict::Error(*reason, 0)));
            turns.push(Next::Refuse(*reason, 12));
        }
        for next in turns {
            let turn = Turn::new(next);
            assert_eq!(turn.next(), next);
            let slot = turn.redirects();
            assert_eq!(
                slot.is_some(),
                matches!(next, Next::Done(Verdict::Redirect(_)))
            );
        }
    }
}
