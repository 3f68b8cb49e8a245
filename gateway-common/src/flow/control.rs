//! The control word of a place in the flow table: its state, the TCP flags seen, a pin, and its version.
//!
//! ```text
//!   31                           10   9   8             3 2     0
//!   ┌──────────────────────────────┬─────┬───────────────┬───────┐
//!   │ version                      │ pin │ flags seen    │ state │
//!   └──────────────────────────────┴─────┴───────────────┴───────┘
//! ```
//!
//! Every change is a compare-and-exchange of the whole word. So a change of a flow that was replaced meanwhile fails,
//! since the version differs. Only the CPU that has pinned an entry takes the pin back without one.
//!
//! While an entry is pinned, the place gets no other version, so one CPU can write to the entry without hitting a
//! successor. Whoever removes a pinned entry makes it tentative, which hides it at once; the place becomes free when
//! the pin is taken back.

use bytemuck::{Pod, Zeroable};

use crate::{atomic::highest_bit, flow::TcpFlagsSeen};

/// The state of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum PlaceState {
    /// The place holds no entry.
    Free = 0,
    /// One CPU is writing an entry. Nobody else reads it.
    Reserved = 1,
    /// The entry is written, and its CPU is looking for another entry with the same key. Only insertions see it.
    Tentative = 2,
    /// The flow is not confirmed by both sides. A new flow may take the place.
    HalfOpen = 3,
    /// The flow is confirmed by both sides.
    Established = 4,
    /// As `Established`, and the other direction's FIN has not been acknowledged by this direction yet.
    FinUnacked = 5,
    /// The flow is closed: both FINs were acknowledged, or a reset was accepted. A new flow may take the place.
    Closed = 6,
}

/// The control word of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Control(u32);

const STATE_MASK: u32 = 7;
const FLAGS_SHIFT: u32 = 3;
const FLAGS_MASK: u32 = 0x3f << FLAGS_SHIFT;
const PIN: u32 = 1 << 9;
const VERSION_SHIFT: u32 = 10;
const VERSION_ONE: u32 = 1 << VERSION_SHIFT;
const _: () = assert!((TcpFlagsSeen::ALL_BITS as u32) << FLAGS_SHIFT & !FLAGS_MASK == 0);

impl Control {
    /// The word of a place that was never used.
    pub const NEVER_USED: Self = Self(0);

    /// Wraps a word as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns the word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> PlaceState {
        match self.0 & STATE_MASK {
            0 => PlaceState::Free,
            1 => PlaceState::Reserved,
            2 => PlaceState::Tentative,
            3 => PlaceState::HalfOpen,
            4 => PlaceState::Established,
            5 => PlaceState::FinUnacked,
            _ => PlaceState::Closed,
        }
    }

    /// Returns true if the place is in this state.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, state: PlaceState) -> bool {
        self.0 & STATE_MASK == state as u32
    }

    /// Returns true if packets can find the entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_visible(self) -> bool {
        self.0 & STATE_MASK >= PlaceState::HalfOpen as u32
    }

    /// Returns 1 if the place is free, else 0, without a branch.
    #[inline(always)]
    #[must_use]
    pub fn free_bit(self) -> u64 {
        const { assert!(PlaceState::Free as u32 == 0) };
        highest_bit(u64::from(self.0 & STATE_MASK).wrapping_sub(1))
    }

    /// Returns true if the place holds an entry that is written.
    #[inline(always)]
    #[must_use]
    pub const fn is_written(self) -> bool {
        self.0 & STATE_MASK >= PlaceState::Tentative as u32
    }

    /// Returns true if the flow is confirmed and not closed.
    #[inline(always)]
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        self.is(PlaceState::Established) || self.is(PlaceState::FinUnacked)
    }

    /// Returns the TCP flags seen in the entry's direction.
    #[inline(always)]
    #[must_use]
    pub const fn flags_seen(self) -> TcpFlagsSeen {
        TcpFlagsSeen(((self.0 & FLAGS_MASK) >> FLAGS_SHIFT) as u8)
    }

    /// Returns the word with other flags seen.
    #[inline(always)]
    #[must_use]
    pub const fn with_flags(self, seen: TcpFlagsSeen) -> Self {
        Self(self.0 & !FLAGS_MASK | (seen.0 as u32) << FLAGS_SHIFT & FLAGS_MASK)
    }

    /// Returns the word with another state of the same entry.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: PlaceState) -> Self {
        Self(self.0 & !STATE_MASK | state as u32)
    }

    /// Returns the word of the place with its next version, in this state and with no flags seen. The entry that the
    /// place held, if any, is gone.
    #[inline(always)]
    #[must_use]
    pub const fn next_version(self, state: PlaceState) -> Self {
        let version = self.version_bits().wrapping_add(VERSION_ONE);
        Self(version | state as u32)
    }

    /// Returns true if a CPU has pinned the entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        self.0 & PIN != 0
    }

    /// Returns the word with the entry pinned.
    #[inline(always)]
    #[must_use]
    pub const fn pinned(self) -> Self {
        Self(self.0 | PIN)
    }

    /// Returns the word without the pin.
    #[inline(always)]
    #[must_use]
    pub const fn unpinned(self) -> Self {
        Self(self.0 & !PIN)
    }

    /// Returns the word of the place once its entry is removed.
    #[inline(always)]
    #[must_use]
    pub const fn removed(self) -> Self {
        if self.is_pinned() {
            self.with_state(PlaceState::Tentative)
        } else {
            self.next_version(PlaceState::Free)
        }
    }

    /// Returns the version, in the word's upper 22 bits.
    #[inline(always)]
    #[must_use]
    pub const fn version_bits(self) -> u32 {
        self.0 & !(VERSION_ONE - 1)
    }

    /// Returns true if both words are of the same entry, in whatever state.
    #[inline(always)]
    #[must_use]
    pub const fn is_same_entry(self, other: Self) -> bool {
        (self.0 ^ other.0) >> VERSION_SHIFT == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap() {
        let mut word = Control::NEVER_USED;
        for _ in 0..3 {
            word = word.next_version(PlaceState::Reserved);
        }
        let flagged = word
            .with_flags(TcpFlagsSeen::FIN.union(TcpFlagsSeen::ACK))
            .with_state(PlaceState::Closed);
        assert!(flagged.is_same_entry(word) && flagged.is(PlaceState::Closed));
        assert_eq!(
            flagged.flags_seen(),
            TcpFlagsSeen::FIN.union(TcpFlagsSeen::ACK)
        );
        let next = flagged.next_version(PlaceState::Free);
        assert!(!next.is_same_entry(flagged));
        assert_eq!(next.flags_seen(), TcpFlagsSeen::NONE);
    }

    #[test]
    fn removal_of_a_pinned_entry_keeps_its_version() {
        let word = Control::from_bits(!PIN).with_state(PlaceState::Established);
        let pinned = word.pinned();
        assert!(pinned.is_pinned() && pinned.is_same_entry(word));
        assert_eq!(pinned.flags_seen(), word.flags_seen());
        assert_eq!(pinned.unpinned(), word);
        let removed = pinned.removed();
        assert!(removed.is_pinned() && removed.is_same_entry(word) && !removed.is_visible());
        assert!(!word.removed().is_same_entry(word) && word.removed().is(PlaceState::Free));
    }

    #[test]
    fn version_wraps_without_touching_the_rest() {
        let last = Control::from_bits(u32::MAX).next_version(PlaceState::HalfOpen);
        assert_eq!(last.to_bits(), PlaceState::HalfOpen as u32);
    }

    #[test]
    fn free_bit_tells_free_places_only() {
        use PlaceState::*;
        for state in [
            Free,
            Reserved,
            Tentative,
            HalfOpen,
            Established,
            FinUnacked,
            Closed,
        ] {
            let word = Control::from_bits(77 << VERSION_SHIFT).with_state(state);
            assert_eq!(word.free_bit() == 1, state == Free, "{state:?}");
            assert_eq!(word.state(), state);
        }
    }
}
