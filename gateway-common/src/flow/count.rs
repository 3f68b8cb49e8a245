//! Counts of flows, which all CPUs change.

use bytemuck::{Pod, Zeroable};

/// A number of flows in the lower half of a word, and the number of times that it was increased in the upper half.
///
/// So the agent knows that no flow was added between two readings of equal words, and none was taken away either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct FlowCount(u64);

impl FlowCount {
    /// The word that is added to count a flow.
    pub const ONE_MORE: u64 = 1 << 32 | 1;

    /// Wraps a word as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the number of flows.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// Returns the word with a change of the number, which does not fall below zero.
    #[must_use]
    pub const fn adjusted(self, by: i64) -> u64 {
        let number = self.get().saturating_add_signed(by);
        let number = if number > 0xffff_ffff {
            0xffff_ffff
        } else {
            number
        };
        self.0 & !0xffff_ffff | number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_increases_are_apart() {
        let one = FlowCount::from_bits(FlowCount::ONE_MORE);
        assert_eq!(one.get(), 1);
        let none = FlowCount::from_bits(FlowCount::ONE_MORE - 1);
        assert_eq!(none.get(), 0);
        assert_ne!(none, FlowCount::default());
        assert_eq!(one.adjusted(-3), none.0);
        assert_eq!(FlowCount::from_bits(one.adjusted(4)).get(), 5);
        assert_eq!(
            FlowCount::from_bits(one.adjusted(i64::MAX)).get(),
            0xffff_ffff
        );
        let wrapped = FlowCount::from_bits(u64::MAX << 32)
            .0
            .wrapping_add(FlowCount::ONE_MORE);
        assert_eq!(FlowCount::from_bits(wrapped).get(), 1);
    }
}
