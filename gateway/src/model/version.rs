//! Versions of objects: what a change is compared by, so that nobody overwrites what he has not seen.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// An object's version: the store's revision, and the number that users see in its place.
///
/// Every write of any tenant raises the revision, so whoever saw it would see how busy the others are. The
/// number that is shown is a keyed hash of identity and revision. Two of them can only be compared for
/// equality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    revision: u64,
    shown: u64,
}

/// The bits of a version that are shown: what a JSON number holds exactly everywhere (RFC 7493, section
/// 2.2).
const SHOWN_BITS: u32 = 53;

/// The largest number that is shown.
pub const MOST_SHOWN: u64 = (1 << SHOWN_BITS) - 1;

impl Version {
    /// Makes the version of an entry that the store has at this revision. Users see it as 0 until
    /// [`VersionKey::stamp`] has made the number that they see.
    #[must_use]
    pub const fn stored(revision: u64) -> Self {
        Self { revision, shown: 0 }
    }

    /// Returns the store's revision: for the store only.
    #[must_use]
    pub const fn revision(self) -> u64 {
        self.revision
    }

    /// Returns the number that users see.
    #[must_use]
    pub const fn shown(self) -> u64 {
        self.shown
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)
    }
}

// The revision is the store's own, and never leaves it in an object.
impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shown = u64::deserialize(deserializer)?;
        Ok(Self { revision: 0, shown })
    }
}

/// The key that makes versions out of revisions. Gateways that share a store have the same one.
#[derive(Clone)]
pub struct VersionKey(hmac::Key);

impl fmt::Debug for VersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VersionKey")
    }
}

impl Default for VersionKey {
    fn default() -> Self {
        Self::new(0)
    }
}

impl VersionKey {
    /// Derives the key from the store's secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut secret = b"object versions".to_vec();
        secret.extend(seed.to_be_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// Returns the version of the object that the store has at this revision. Never 0, which is the version
    /// of what is not stored.
    #[must_use]
    pub fn stamp(&self, uid: Uuid, revision: u64) -> Version {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(uid.as_bytes());
        context.update(&revision.to_be_bytes());
        let tag = context.sign();
        let start = tag.as_ref().iter().take(8);
        let word = start.fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Version {
            revision,
            shown: (word >> (u64::BITS - SHOWN_BITS)).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_tells_nothing_of_the_revision() {
        let key = VersionKey::new(7);
        let uid = Uuid::from_u128(1);
        let versions: Vec<Version> = (1..=1_000).map(|at| key.stamp(uid, at)).collect();
        // Neither the order nor the distance of two shows: a fair coin is heads in 500 of 1,000 throws,
        // with a standard deviation of 16.
        let rises = versions
            .windows(2)
            .filter(|pair| pair[0].shown < pair[1].shown);
        let rises = rises.count();
        assert!((400..600).contains(&rises), "{rises}");
        assert!(versions.iter().all(|version| version.shown <= MOST_SHOWN));
        assert_eq!(key.stamp(uid, 5), key.stamp(uid, 5));
        assert_ne!(
            key.stamp(uid, 5).shown,
            key.stamp(Uuid::from_u128(2), 5).shown
        );
        assert_ne!(
            key.stamp(uid, 5).shown,
            VersionKey::new(8).stamp(uid, 5).shown
        );
    }

    #[test]
    fn only_what_is_shown_is_written() {
        let version = VersionKey::new(7).stamp(Uuid::from_u128(1), 5);
        let text = serde_json::to_string(&version).unwrap();
        assert_eq!(text, version.shown.to_string());
        let read: Version = serde_json::from_str(&text).unwrap();
        assert_eq!((read.revision, read.shown), (0, version.shown));
    }
}
