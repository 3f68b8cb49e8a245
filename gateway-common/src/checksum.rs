//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A checksum is the complement of the one's complement sum over 16-bit words. One's complement addition does not
//! depend on the byte order, so all functions work on words as loaded, without swapping bytes.
//!
//! A flow entry holds the checksum deltas of its rewriting, folded to 16 bits: the data path updates a checksum by
//! adding one number, and never sums up a packet for that.

use crate::byte_order::{Be16, Be32};

/// A one's complement sum that has not been folded yet.
///
/// # Examples
///
/// Updating the checksum after one field has changed equals summing up everything again (RFC 1624):
///
/// ```
/// use gateway_common::{
///     Be16,
///     checksum::{Sum, sum_bytes, update},
/// };
///
/// let old = [0x45, 0x00, 0x00, 0x54, 0x1c, 0x46];
/// let new = [0x45, 0x00, 0x05, 0xdc, 0x1c, 0x46];
///
/// let delta = Sum::ZERO.replace16(Be16::new(0x0054), Be16::new(0x05dc));
/// let updated = update(sum_bytes(&old).checksum(), delta.fold());
/// assert_eq!(updated, sum_bytes(&new).checksum());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// The delta of a TTL decrement: the change of an IPv4 header's sum when its TTL becomes one less.
///
/// The TTL is the first byte of its 16-bit word in any host byte order.
pub const TTL_DECREMENT: u16 = !u16::from_ne_bytes([1, 0]);

impl Sum {
    /// The sum over no words.
    pub const ZERO: Self = Self(0);

    /// Wraps the unfolded sum that a BPF helper computed over bytes.
    #[inline(always)]
    #[must_use]
    pub const fn from_partial(partial: u32) -> Self {
        Self(partial as u64)
    }

    /// Adds another sum. The words of the two must be aligned alike: an even number of bytes lies between them.
    #[inline(always)]
    #[must_use]
    pub const fn add_sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds a 16-bit word as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn add_word(self, raw: u16) -> Self {
        Self(self.0 + raw as u64)
    }

    /// Adds a 16-bit field.
    #[inline(always)]
    #[must_use]
    pub const fn add_be16(self, value: Be16) -> Self {
        self.add_word(value.raw())
    }

    /// Adds both 16-bit words of a 32-bit field.
    #[inline(always)]
    #[must_use]
    pub const fn add_be32(self, value: Be32) -> Self {
        Self(self.0 + value.raw() as u64)
    }

    /// Adds the delta of replacing one 16-bit field by another: `~m + m'` in RFC 1624.
    #[inline(always)]
    #[must_use]
    pub const fn replace16(self, old: Be16, new: Be16) -> Self {
        self.add_word(!old.raw()).add_be16(new)
    }

    /// Adds the delta of replacing one 32-bit field by another.
    #[inline(always)]
    #[must_use]
    pub const fn replace32(self, old: Be32, new: Be32) -> Self {
        Self(self.0 + !old.raw() as u64).add_be32(new)
    }

    /// Folds the sum to 16 bits: carries are added back in.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits before")]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// Folds a sum of fewer than 2^15 words, in fewer steps than [`Sum::fold`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits before")]
    pub const fn fold_short(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum += sum >> 16;
        sum as u16
    }

    /// Returns the checksum field for data with this sum.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> Be16 {
        Be16::from_raw(!self.fold())
    }
}

/// Updates a checksum by a folded delta `~m + m'`: `HC' = ~(~HC + ~m + m')`, equation 3 of RFC 1624.
///
/// # Examples
///
/// Section 4 of RFC 1624, where equation 3 of RFC 1141 gives a wrong result:
///
/// ```
/// use gateway_common::{
///     Be16,
///     checksum::{Sum, update},
/// };
///
/// let delta = Sum::ZERO.replace16(Be16::new(0x5555), Be16::new(0x3285));
/// assert_eq!(update(Be16::new(0xdd2f), delta.fold()), Be16::new(0x0000));
/// ```
#[inline(always)]
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "two words fold in two steps"
)]
pub const fn update(checksum: Be16, delta: u16) -> Be16 {
    let sum = (!checksum.raw()) as u32 + delta as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    Be16::from_raw(!(sum as u16))
}

/// Updates a checksum of UDP over IPv4, where 0 on the wire means "no checksum" (RFC 768). A missing checksum stays
/// missing, and a computed 0 becomes all ones.
#[inline(always)]
#[must_use]
pub const fn update_udp(checksum: Be16, delta: u16) -> Be16 {
    if checksum.raw() == 0 {
        return checksum;
    }
    update_nonzero(checksum, delta)
}

/// Updates a checksum, and returns all ones in place of 0. Both represent the same sum. Over data that is all zeros,
/// which occurs only without a pseudo header, only all ones verifies.
#[inline(always)]
#[must_use]
pub const fn update_nonzero(checksum: Be16, delta: u16) -> Be16 {
    let updated = update(checksum, delta);
    if updated.raw() == 0 {
        Be16::from_raw(0xffff)
    } else {
        updated
    }
}

/// Sums up bytes. An odd last byte is padded with zero (RFC 1071).
#[must_use]
pub fn sum_bytes(bytes: &[u8]) -> Sum {
    let mut sum = Sum::ZERO;
    let mut chunks = bytes.chunks_exact(2);
    for chunk in &mut chunks {
        sum = sum.add_word(u16::from_ne_bytes([chunk[0], chunk[1]]));
    }
    if let [last] = chunks.remainder() {
        sum = sum.add_word(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fold_short_equals_fold() {
        let max_sum = (1 << 47) - 1;
        let edges = [0, 0xffff, 0x1_ffff, u64::from(u32::MAX) * 10, max_sum];
        for sum in edges.map(Sum) {
            assert_eq!(sum.fold_short(), sum.fold(), "{sum:?}");
        }
        let grow = |sum: &u64| Some(sum * 17 / 16 + 12_345).filter(|sum| *sum < max_sum);
        for sum in std::iter::successors(Some(1), grow).map(Sum) {
            assert_eq!(sum.fold_short(), sum.fold(), "{sum:?}");
        }
    }

    #[test]
    fn rfc_1071_example() {
        // Section 3: the sum of the bytes 00 01 f2 03 f4 f5 f6 f7 is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum_bytes(&bytes).fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn rfc_1624_section_4_example() {
        // HC = dd2f, m = 5555, m' = 3285: HC' must be 0000. The equation of RFC 1141 gave ffff.
        let delta = Sum::ZERO.replace16(Be16::new(0x5555), Be16::new(0x3285));
        assert_eq!(update(Be16::new(0xdd2f), delta.fold()), Be16::new(0));
    }

    proptest! {
        #[test]
        fn incremental_update_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..60),
            at in 0usize..8,
            new in any::<u32>(),
        ) {
            // One word is never zero, so that neither sum is zero: zero has two representations.
            bytes[16] |= 1;
            let before = sum_bytes(&bytes).checksum();
            let offset = at * 2;
            let old: Be32 = bytemuck::pod_read_unaligned(&bytes[offset..offset + 4]);
            let new = Be32::new(new);
            bytes[offset..offset + 4].copy_from_slice(bytemuck::bytes_of(&new));
            prop_assume!(sum_bytes(&bytes).fold() != 0);
            let after = update(before, Sum::ZERO.replace32(old, new).fold());
            prop_assert_eq!(after, sum_bytes(&bytes).checksum());
        }

        #[test]
        fn ttl_decrement_delta_is_constant(mut header in any::<[u8; 20]>()) {
            header[8] = header[8].max(1);
            header[12] |= 1;
            let before = sum_bytes(&header).checksum();
            header[8] -= 1;
            prop_assert_eq!(update(before, TTL_DECREMENT), sum_bytes(&header).checksum());
        }

        #[test]
        fn update_udp_keeps_presence_of_checksum(checksum in 1u16.., delta in any::<u16>()) {
            prop_assert_ne!(update_udp(Be16::new(checksum), delta).raw(), 0);
            prop_assert_eq!(update_udp(Be16::new(0), delta).raw(), 0);
        }
    }
}
