//! Coarse time: the time stamps of flow entries.

/// Time in units of 2^30 nanoseconds (1.07 s) since the machine started (`CLOCK_MONOTONIC_COARSE`). The unit is a
/// power of two, so that the kernel's clock is converted by a shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseTime(pub u32);

impl CoarseTime {
    const SHIFT: u32 = 30;

    /// Converts nanoseconds of the monotonic clock.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits hold 146 years")]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> Self::SHIFT) as u32)
    }

    /// Returns the nanoseconds of the monotonic clock at which this unit of time began.
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        (self.0 as u64) << Self::SHIFT
    }

    /// Returns the number of ticks after which more than `seconds` have passed for certain.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits hold 146 years")]
    pub const fn ticks(seconds: u32) -> u32 {
        ((seconds as u64 + 1) * 1_000_000_000).div_ceil(1 << Self::SHIFT) as u32
    }

    /// Returns the units of time since `earlier`, or 0 if that lies ahead.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_time_conversions() {
        assert_eq!(CoarseTime::from_nanoseconds(0), CoarseTime(0));
        assert_eq!(CoarseTime::from_nanoseconds(1 << 31), CoarseTime(2));
        assert_eq!(CoarseTime(5).since(CoarseTime(3)), 2);
        assert_eq!(CoarseTime(3).since(CoarseTime(5)), 0);
        assert_eq!(
            CoarseTime::from_nanoseconds(CoarseTime(77).nanoseconds()),
            CoarseTime(77)
        );
    }
}
