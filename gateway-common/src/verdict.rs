//! What becomes of a packet.

use crate::DropReason;

/// The data path's decision about one packet; made by a stage, carried out and counted in one place.
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
    /// Rewritten; out through the attachment in this slot of the device map.
    Redirect(u32),
}

/// A stage's result: go on with a value, or stop with a verdict.
pub type Step<T> = Result<T, Verdict>;

impl Verdict {
    /// All of it in one word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let (tag, reason, slot) = match self {
            Self::Pass => (0, 0, 0),
            Self::Drop(reason, link) => (1, reason as u8, link),
            Self::Reply => (2, 0, 0),
            Self::Reset(reason, link) => (3, reason as u8, link),
            Self::Redirect(slot) => (4, 0, slot),
        };
        tag | (reason as u64) << 8 | (slot as u64) << 32
    }

    /// What [`Verdict::to_bits`] made a word of.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "one byte is wanted")]
    pub const fn from_bits(bits: u64) -> Self {
        let slot = (bits >> 32) as u32;
        let reason = DropReason::from_byte((bits >> 8) as u8);
        match bits & 0xff {
            0 => Self::Pass,
            1 => Self::Drop(reason, slot),
            2 => Self::Reply,
            3 => Self::Reset(reason, slot),
            _ => Self::Redirect(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_each_verdict() {
        let mut verdicts = vec![Verdict::Pass, Verdict::Reply, Verdict::Redirect(7)];
        for reason in DropReason::ALL {
            verdicts.push(Verdict::Drop(*reason, u32::MAX));
            verdicts.push(Verdict::Reset(*reason, 65_535));
        }
        for verdict in verdicts {
            assert_eq!(Verdict::from_bits(verdict.to_bits()), verdict);
        }
    }
}
