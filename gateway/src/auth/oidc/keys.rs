//! Cache of an issuer's keys: decides when keys are fetched again. Does no I/O.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};

/// Interval between successful fetches of an issuer's keys.
pub(super) const REFRESH_AFTER: Duration = Duration::from_secs(3_600);
/// Time for which keys stay in use although they can't be fetched again.
const STALE_AFTER: Duration = Duration::from_secs(86_400);
/// Minimum interval between the end of a fetch and the next one, whatever tokens arrive.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(5);
/// Time for which an unknown key causes no further fetch.
const UNKNOWN_KEY_LIFETIME: Duration = Duration::from_secs(30);
/// Maximum number of remembered unknown keys.
const MAX_UNKNOWN: usize = 1_024;
/// Time after which a fetch that has not ended counts as lost.
const FETCH_ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// Cached keys of an issuer.
#[derive(Default)]
pub(super) struct KeyCache {
    set: Option<(Instant, JwkSet)>,
    fetch_started_at: Option<Instant>,
    last_fetched_at: Option<Instant>,
    unknown: HashMap<String, Instant>,
}

/// Outcome of a look-up.
pub(super) enum KeyLookup {
    /// The key is cached.
    Found(DecodingKey),
    /// The key is not cached, and no fetch is allowed now.
    Rejected,
    /// The key is not cached: the caller must fetch the keys and look the key up again.
    FetchRequired,
    /// The key is not cached, and a fetch is in progress: the caller must wait for it and look the key up again.
    FetchInProgress,
}

impl KeyCache {
    /// Looks a key up. [`KeyLookup::FetchRequired`] marks a fetch as begun.
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

    /// Returns the cached key with the id, if it may be used with the algorithm.
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

    /// Returns true if no fetch has succeeded yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.set.is_none()
    }

    fn is_fetch_in_progress(&self, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        self.fetch_started_at
            .is_some_and(|at| age(at) < FETCH_ABANDONED_AFTER)
    }

    /// Marks a fetch as begun. Returns false if one is in progress or the last one ended too recently.
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

    /// Records the end of a fetch, with the keys if it succeeded.
    pub(super) fn end_fetch(&mut self, set: Option<JwkSet>, now: Instant) {
        self.fetch_started_at = None;
        self.last_fetched_at = Some(now);
        if let Some(set) = set {
            self.unknown.retain(|id, _| set.find(id).is_none());
            self.set = Some((now, set));
        }
    }

    /// Records that the issuer does not have the key. Does nothing unless the last fetch succeeded.
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

/// Returns true if the key may verify signatures of the algorithm.
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
            KeyLookup::Rejected => "rejected",
            KeyLookup::FetchRequired => "fetch",
            KeyLookup::FetchInProgress => "fetching",
        }
    }

    #[test]
    fn cached_keys_never_wait_for_a_fetch() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert_eq!(look(&mut cache, "a", start), "fetch");
        assert_eq!(look(&mut cache, "a", start), "fetching");
        cache.end_fetch(Some(set("a")), start);
        assert_eq!(look(&mut cache, "a", start), "found");
        let later = start + MIN_FETCH_INTERVAL;
        assert_eq!(look(&mut cache, "b", later), "fetch");
        assert_eq!(look(&mut cache, "a", later), "found");
        assert_eq!(look(&mut cache, "c", later), "fetching");
        // The issuer can't be reached: keys stay in use for a day.
        cache.end_fetch(None, later);
        assert_eq!(
            look(&mut cache, "a", start + STALE_AFTER - MIN_FETCH_INTERVAL),
            "found"
        );
        assert_eq!(look(&mut cache, "a", start + STALE_AFTER), "fetch");
    }

    #[test]
    fn unknown_keys_trigger_few_fetches() {
        let start = Instant::now();
        let mut cache = KeyCache::default();
        assert!(cache.begin_fetch(start));
        cache.end_fetch(Some(set("a")), start);
        assert_eq!(
            look(&mut cache, "b", start + MIN_FETCH_INTERVAL / 2),
            "rejected"
        );
        assert_eq!(look(&mut cache, "b", start + MIN_FETCH_INTERVAL), "fetch");
        cache.end_fetch(Some(set("a")), start + MIN_FETCH_INTERVAL);
        cache.record_unknown("b", start + MIN_FETCH_INTERVAL);
        let after = start + MIN_FETCH_INTERVAL * 2;
        assert_eq!(look(&mut cache, "b", after), "rejected");
        assert_eq!(look(&mut cache, "c", after), "fetch");
        // The fetch for another key brings it.
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
        assert_eq!(look(&mut cache, "a", start + MIN_FETCH_INTERVAL), "fetch");
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
        assert_eq!(look(&mut cache, "a", start), "fetch");
        assert_eq!(
            look(&mut cache, "a", start + FETCH_ABANDONED_AFTER),
            "fetch"
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
