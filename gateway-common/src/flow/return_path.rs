//! The return path: the part of an entry that says where a flow's packets come from, and are returned to.

use crate::{flow::CoarseTime, packet::PackedMac};

/// Flag of an entry towards the consumer.
pub(super) const TO_CONSUMER: u16 = 1 << 14;
/// Flag of an entry whose packets leave in the other family.
pub(super) const NAT46: u16 = 1 << 15;
const SLOT_MASK: u64 = TO_CONSUMER as u64 - 1;
const CREATED_SHIFT: u32 = 1;
const CREATED_MASK: u32 = (1 << 24) - 1;

/// The neighbour that a flow's packets come from, and are returned to: the last eight bytes of an entry, as loaded.
///
/// ```text
///   0        14      16                    40                    64
///   ┌─────────┬───────┬─────────────────────┬─────────────────────┐
///   │ egress  │ flags │ MAC address                               │  towards the consumer
///   │ slot    │       │ time of creation    │ digest of the MAC   │  towards the service
///   └─────────┴───────┴─────────────────────┴─────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnPath(u64);

#[expect(clippy::cast_possible_truncation, reason = "the parts of a word")]
impl ReturnPath {
    const MAC_SHIFT: u32 = 16;
    const DIGEST_SHIFT: u32 = 40;

    /// Joins the two fields of an entry.
    #[inline(always)]
    #[must_use]
    pub(super) const fn from_parts(egress_and_flags: u16, rest: [u16; 3]) -> Self {
        let [a, b, c] = [rest[0].to_le(), rest[1].to_le(), rest[2].to_le()];
        Self(
            egress_and_flags.to_le() as u64
                | (a as u64) << 16
                | (b as u64) << 32
                | (c as u64) << 48,
        )
    }

    /// Returns the two fields of an entry.
    #[inline(always)]
    #[must_use]
    pub(super) const fn to_parts(self) -> (u16, [u16; 3]) {
        let rest = [
            ((self.0 >> 16) as u16).to_le(),
            ((self.0 >> 32) as u16).to_le(),
            ((self.0 >> 48) as u16).to_le(),
        ];
        ((self.0 as u16).to_le(), rest)
    }

    /// Returns the coarse time at which the flow was opened, to two units. Valid only for an entry towards the service,
    /// and only in the first year of the flow.
    #[inline(always)]
    #[must_use]
    pub const fn created_at(self, now: CoarseTime) -> CoarseTime {
        /// A flow may have been opened since `now` was read.
        const MAX_AHEAD: u32 = 256;
        let now = now.0 >> CREATED_SHIFT;
        let created = (self.0 >> Self::MAC_SHIFT) as u32 & CREATED_MASK;
        let age = now.wrapping_sub(created) & CREATED_MASK;
        if age > CREATED_MASK - MAX_AHEAD {
            return CoarseTime(now << CREATED_SHIFT);
        }
        CoarseTime(now.wrapping_sub(age) << CREATED_SHIFT)
    }

    /// Returns the path with another time that [`ReturnPath::created_at`] returns.
    #[inline(always)]
    #[must_use]
    pub(super) const fn with_created_at(self, time: CoarseTime) -> Self {
        const BITS: u64 = (CREATED_MASK as u64) << ReturnPath::MAC_SHIFT;
        let created = (time.0 >> CREATED_SHIFT & CREATED_MASK) as u64;
        Self(self.0 & !BITS | created << Self::MAC_SHIFT)
    }

    /// Wraps the word as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw.to_le())
    }

    /// Returns the word as it is stored.
    #[inline(always)]
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        self.0.to_le()
    }

    /// Returns the path of a packet that arrives from this neighbour.
    #[inline(always)]
    #[must_use]
    pub const fn new(egress_slot: u32, mac: PackedMac) -> Self {
        Self(egress_slot as u64 & SLOT_MASK | mac.to_bits() << Self::MAC_SHIFT)
    }

    /// Wraps a number that [`ReturnPath::to_bits`] has returned.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the path as a number.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the slot of the attachment.
    #[inline(always)]
    #[must_use]
    pub const fn egress_slot(self) -> u32 {
        (self.0 & SLOT_MASK) as u32
    }

    /// Returns the MAC address. Valid only for an entry towards the consumer.
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> PackedMac {
        PackedMac::from_bits(self.0 >> Self::MAC_SHIFT)
    }

    /// Returns true if the path of an entry towards the service is that of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_path_of(self, packet: Self) -> bool {
        (self.0 >> Self::DIGEST_SHIFT) as u32 == packet.mac().digest()
            && (self.0 ^ packet.0) & SLOT_MASK == 0
    }

    /// Returns this path of an entry towards the consumer, changed to that of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn to_consumer_by(self, packet: Self) -> Self {
        const FLAGS: u64 = (TO_CONSUMER | NAT46) as u64;
        Self(self.0 & FLAGS | packet.0 & !FLAGS)
    }

    /// Returns this path of an entry towards the service, changed to that of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn to_service_by(self, packet: Self) -> Self {
        const KEPT: u64 = ((1 << ReturnPath::DIGEST_SHIFT) - 1) & !SLOT_MASK;
        Self(
            self.0 & KEPT
                | packet.0 & SLOT_MASK
                | (packet.mac().digest() as u64) << Self::DIGEST_SHIFT,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        family::V4,
        flow::{Direction, Flow},
        packet::Mac,
    };

    #[test]
    fn creation_and_neighbour_share_a_word() {
        let mut flow = Flow::<V4>::default();
        let (mac, other) = (
            PackedMac::from(Mac::new([2, 3, 4, 5, 6, 7])),
            PackedMac::from(Mac::new([2, 3, 4, 5, 6, 8])),
        );
        flow.set_direction(Direction::ToService, 16_382, true);
        for now in [0x1234_5678, 0x1234_5679, 0, 1, (1 << 25) - 1, 1 << 25] {
            let created = CoarseTime(now);
            flow.set_created_at(created);
            for age in [0, 1, 2, 3, 1 << 24, (1 << 25) - 1_000] {
                let found = flow.created_at(CoarseTime(now + age));
                assert_eq!(found.0, now & !1, "{now} {age}");
            }
        }
        // Opened after the time was read.
        assert_eq!(flow.created_at(CoarseTime((1 << 25) - 9)).0, (1 << 25) - 10);
        flow.set_return_path(
            flow.return_path()
                .to_service_by(ReturnPath::new(16_382, mac)),
        );
        let path = flow.return_path();
        assert!(path.is_path_of(ReturnPath::new(16_382, mac)));
        assert!(!path.is_path_of(ReturnPath::new(16_381, mac)));
        assert!(!path.is_path_of(ReturnPath::new(16_382, other)));
        let packet = ReturnPath::new(1, other);
        let created = flow.created_at(CoarseTime(1 << 25));
        flow.set_return_path(path.to_service_by(packet));
        assert!(flow.return_path().is_path_of(packet));
        assert_eq!(flow.created_at(CoarseTime(1 << 25)), created);
        assert_eq!(
            (flow.direction(), flow.is_nat46()),
            (Direction::ToService, true)
        );
        flow.set_direction(Direction::ToConsumer, 7, true);
        flow.set_return_path(flow.return_path().to_consumer_by(packet));
        assert_eq!((flow.egress_slot(), flow.consumer_mac()), (1, other));
        assert_eq!(
            (flow.direction(), flow.is_nat46()),
            (Direction::ToConsumer, true)
        );
        assert_eq!(ReturnPath::from_raw(path.to_raw()), path);
    }
}
