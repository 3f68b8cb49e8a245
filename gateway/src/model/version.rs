//! Versions of objects. A change may name the version that it is based on, so that it does not overwrite a change of
//! somebody else (optimistic concurrency control).

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Version of an object: the store's revision, and the public number that users see instead.
///
/// Every write of any tenant raises the revision, so a visible revision would reveal how busy other tenants are. The
/// public number is a keyed hash of the object's uid and revision. Public numbers can be compared for equality only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    revision: u64,
    public_value: u64,
}

/// Bits of the public number: as many as a JSON number holds exactly in every implementation (RFC 7493, section 2.2).
const PUBLIC_BITS: u32 = 53;

/// Largest public number.
pub const MAX_PUBLIC: u64 = (1 << PUBLIC_BITS) - 1;

impl Version {
    /// Creates the version of an entry at this revision of the store. The public number is 0 until
    /// [`VersionKey::derive_version`] computes it.
    #[must_use]
    pub const fn from_revision(revision: u64) -> Self {
        Self {
            revision,
            public_value: 0,
        }
    }

    /// Returns the store's revision. It must not be shown to users.
    #[must_use]
    pub const fn revision(self) -> u64 {
        self.revision
    }

    /// Returns the public number.
    #[must_use]
    pub const fn public_value(self) -> u64 {
        self.public_value
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public_value.fmt(f)
    }
}

// The revision is private to the store, so it is never serialized with an object.
impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.public_value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shown = u64::deserialize(deserializer)?;
        Ok(Self {
            revision: 0,
            public_value: shown,
        })
    }
}

/// Key that derives public numbers from revisions. Gateways that share a store have the same key.
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

    /// Returns the version of the object at this revision of the store. The public number is never 0, which is that of
    /// an object that is not stored.
    #[must_use]
    pub fn derive_version(&self, uid: Uuid, revision: u64) -> Version {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(uid.as_bytes());
        context.update(&revision.to_be_bytes());
        let tag = context.sign();
        let start = tag.as_ref().iter().take(8);
        let word = start.fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Version {
            revision,
            public_value: (word >> (u64::BITS - PUBLIC_BITS)).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_value_does_not_reveal_the_revision() {
        let key = VersionKey::new(7);
        let uid = Uuid::from_u128(1);
        let versions: Vec<Version> = (1..=1_000).map(|at| key.derive_version(uid, at)).collect();
        // The order of two revisions must not show: a fair coin is heads in 500 of 1,000 throws, with a standard
        // deviation of 16.
        let rises = versions
            .windows(2)
            .filter(|pair| pair[0].public_value < pair[1].public_value);
        let rises = rises.count();
        assert!((400..600).contains(&rises), "{rises}");
        assert!(
            versions
                .iter()
                .all(|version| version.public_value <= MAX_PUBLIC)
        );
        assert_eq!(key.derive_version(uid, 5), key.derive_version(uid, 5));
        assert_ne!(
            key.derive_version(uid, 5).public_value,
            key.derive_version(Uuid::from_u128(2), 5).public_value
        );
        assert_ne!(
            key.derive_version(uid, 5).public_value,
            VersionKey::new(8).derive_version(uid, 5).public_value
        );
    }

    #[test]
    fn only_the_public_value_is_serialized() {
        let version = VersionKey::new(7).derive_version(Uuid::from_u128(1), 5);
        let text = serde_json::to_string(&version).unwrap();
        assert_eq!(text, version.public_value.to_string());
        let read: Version = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read.revision, read.public_value),
            (0, version.public_value)
        );
    }
}
