//! Hints: the argument of the slow path, which saves it work that was done for the packet already.

/// Facts that are known about a packet when the slow path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowPathHints(u64);

impl SlowPathHints {
    /// No fact is known.
    pub const NONE: Self = Self(0);
    /// No flow matches the packet, so the table need not be searched.
    pub const FLOW_MISSED: Self = Self(1);
    /// The packet has passed the early drop.
    pub const SKIP_EARLY_DROP: Self = Self(2);

    /// Returns the facts of both.
    #[inline(always)]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns true if these hints include all of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the hints with this word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
