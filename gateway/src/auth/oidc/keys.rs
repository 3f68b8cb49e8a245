//! Cache of an issuer's keys: which look-ups are answered from it, and when the issuer is asked again. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};

/// Time between two reads of an issuer's keys while all goes well.
pub(super) const REFRESH_AFTER: Duration = Duration::from_secs(3_600);
/// Time for which keys that can't be read again stay in use.
const STALE_AFTER: Duration = Duration::from_secs(86_400);
/// Shortest time between the end of one read and the next, whatever tokens come.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(5);
/// Time for which a key that the issuer does not have makes nobody ask for it again.
const UNKNOWN_KEY_LIFETIME: Duration = Duration::from_secs(30);
/// Largest number of unknown keys that are remembered.
const MAX_UNKNOWN: usize = 1_024;
/// Time after which a read that was begun and never finished counts as lost.
const FETCH_ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// Keys of an issuer.
#[derive(Default)]
pub(super) struct KeyCache {
    set: Option<(Instant, JwkSet)>,
    fetch_started_at: Option<Instant>,
    last_fetched_at: Option<Instant>,
    unknown: HashMap<String, Instant>,
}

/// Answer of the cache to a look-up.
pub(super) enum KeyLookup {
    /// The key is there.
    Found(DecodingKey),
    /// The key is not there, and the issuer is not asked now.
    Rejected,
    /// The key is not there: the caller must read the keys, and look again.
    FetchRequired,
    /// The key is not there, but the keys are being read: look again afterwards.
    FetchInProgress,
}

impl KeyCache {
    /// Looks a key up. [`LookUp::MustRead`] counts as the beginning of a read.
    pub(super) fn look_up(&mut self, id: &str, algorithm: Algorithm, now: Instant) -> KeyLookup {
        if let Some(key) = self.cached_key(id, algorithm, now) {
            return KeyLookup::Found(key);
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.is_fetch_in_progress(now) {
            return KeyLookup::FetchInProgress;
        }
        let unknown = self.unknown.get(id);
        if unknown.is_some_and(|at| age(*at) < UNKNOWN_KEY_LIFETIME) || !self.begin_fetch(now) {
            return KeyLookup::Rejected;
        }
        KeyLookup::FetchRequired
    }

    /// Returns the key that is there for the id and the algorithm.
    pub(super) fn cached_key(
        &self,
        id: &str,
        algorithm: Algorithm,
        now: Instant,
    ) -> Option<DecodingKey> {
        let (read, set) = self.set.as_ref()?;
        if now.saturating_duration_since(*read) >= STALE_AFTER {
            return None;
        }
        let jwk = set.find(id).filter(|jwk| is_usable_for(jwk, algorithm))?;
        DecodingKey::from_jwk(jwk).ok()
    }

    /// Returns whether no keys were ever read.
    pub(super) const fn is_empty(&self) -> bool {
        self.set.is_none()
    }

    fn is_fetch_in_progress(&self, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        self.fetch_started_at
            .is_some_and(|at| age(at) < FETCH_ABANDONED_AFTER)
    }

    /// Notes that a read begins; returns false where one is under way or was made just before.
    pub(super) fn begin_fetch(&mut self, now: Instant) -> bool {
        let paused = self
            .last_fetched_at
            .is_none_or(|at| now.saturating_duration_since(at) >= MIN_FETCH_INTERVAL);
        if !paused || self.is_fetch_in_progress(now) {
            return false;
        }
        self.fetch_started_at = Some(now);
        true
    }

    /// Takes in the end of a read, with the keys if the issuer told them.
    pub(super) fn end_fetch(&mut self, set: Option<JwkSet>, now: Instant) {
        self.fetch_started_at = None;
        self.last_fetched_at = Some(now);
        if let Some(set) = set {
            self.unknown.retain(|id, _| set.find(id).is_none());
            self.set = Some((now, set));
        }
    }

    /// Remembers that the issuer, asked for it, does not have the key. Does nothing while the issuer can't be read.
    pub(super) fn record_unknown(&mut self, id: &str, now: Instant) {
        let read_just_now = self.last_fetched_at.is_some()
            && self.set.as_ref().map(|(read, _)| *read) == self.last_fetched_at;
        if !read_just_now {
            return;
        }
        if self.unknown.len() >= MAX_UNKNOWN {
            self.unknown
                .retain(|_, at| now.saturating_duration_since(*at) < UNKNOWN_KEY_LIFETIME);
        }
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.insert(id.to_owned(), now);
        }
    }
}

/// Returns whether the key may verify signatures of the algorithm.
fn is_usable_for(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let named = jwk.common.key_algorithm.map(|named| named.to_string());
    named.is_none_or(|named| named == format!("{algorithm:?}"))
        && jwk.common.public_key_use != Some(PublicKeyUse::Encryption)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(id: &str) -> JwkSet {
        // The key of RFC 7515, appendix A.3.
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        serde_json::from_value(json!({ "keys": [jwk] })).unwrap()
    }

    fn look(cache: &mut KeyCache, id: &str, now: Instant) -> &'static str {
        match cache.look_up(id, Algorithm::ES256, now) {
            KeyLookup::Found(_) => "found",
            KeyLookup::Rejected => "refused",
            KeyLookup::FetchRequired => "must read",
            KeyLookup::FetchInProgress => "being read",
        }
    }

    #[test]
    fn cached_keys_never_wait_for_a_fetch() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert_eq!(look(&mut cache, "a", start), "must read");
        assert_eq!(look(&mut cache, "a", start), "being read");
        cache.end_fetch(Some(set("a")), start);
        assert_eq!(look(&mut cache, "a", start), "found");
        let later = start + MIN_FETCH_INTERVAL;
        assert_eq!(look(&mut cache, "b", later), "must read");
        assert_eq!(look(&mut cache, "a", later), "found");
        assert_eq!(look(&mut cache, "c", later), "being read");
        // Read long ago, with an issuer that can't be reached: still there, for a day.
        cache.end_fetch(None, later);
        assert_eq!(
            look(&mut cache, "a", start + STALE_AFTER - MIN_FETCH_INTERVAL),
            "found"
        );
        assert_eq!(look(&mut cache, "a", start + STALE_AFTER), "must read");
    }

    #[test]
    fn unknown_keys_trigger_few_fetches() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert!(cache.begin_fetch(start));
        cache.end_fetch(Some(set("a")), start);
        assert_eq!(
            look(&mut cache, "b", start + MIN_FETCH_INTERVAL / 2),
            "refused"
        );
        assert_eq!(
            look(&mut cache, "b", start + MIN_FETCH_INTERVAL),
            "must read"
        );
        cache.end_fetch(Some(set("a")), start + MIN_FETCH_INTERVAL);
        cache.record_unknown("b", start + MIN_FETCH_INTERVAL);
        let after = start + MIN_FETCH_INTERVAL * 2;
        assert_eq!(look(&mut cache, "b", after), "refused");
        assert_eq!(look(&mut cache, "c", after), "must read");
        // The read for another key brings it.
        cache.end_fetch(Some(set("b")), after);
        assert_eq!(look(&mut cache, "b", after), "found");
    }

    #[test]
    fn a_failed_fetch_records_no_unknown_key() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert!(cache.begin_fetch(start));
        cache.end_fetch(None, start);
        cache.record_unknown("a", start);
        assert_eq!(
            look(&mut cache, "a", start + MIN_FETCH_INTERVAL),
            "must read"
        );
    }

    #[test]
    fn remembered_unknown_keys_are_bounded() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        cache.end_fetch(Some(set("a")), start);
        for number in 0..MAX_UNKNOWN * 2 {
            cache.record_unknown(&number.to_string(), start);
        }
        assert_eq!(cache.unknown.len(), MAX_UNKNOWN);
        cache.record_unknown("late", start + UNKNOWN_KEY_LIFETIME);
        assert_eq!(cache.unknown.len(), 1);
    }

    #[test]
    fn an_abandoned_fetch_can_be_repeated() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert_eq!(look(&mut cache, "a", start), "must read");
        assert_eq!(
            look(&mut cache, "a", start + FETCH_ABANDONED_AFTER),
            "must read"
        );
    }

    #[test]
    fn keys_for_other_algorithms_or_encryption_are_ignored() {
        let now = Instant::now();
        let mut cache = KeyCache::default();
        cache.end_fetch(Some(set("a")), now);
        assert!(cache.cached_key("a", Algorithm::ES256, now).is_some());
        assert!(cache.cached_key("a", Algorithm::RS256, now).is_none());
        let mut other = set("a");
        other.keys[0].common.public_key_use = Some(PublicKeyUse::Encryption);
        cache.end_fetch(Some(other), now);
        assert!(cache.cached_key("a", Algorithm::ES256, now).is_none());
    }
}
