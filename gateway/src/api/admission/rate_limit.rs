//! Token buckets (GCRA) with bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Maximum number of keys with an entry. Each takes some 100 bytes.
const MAX_KEYS: usize = 16_384;

/// The fill rate and the size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Tokens a second; 0 means no limit.
    pub(super) per_second: u32,
    /// Tokens in a full bucket.
    pub(super) burst: u32,
}

/// Token buckets of one rate, one for each key.
///
/// A bucket is stored as the time at which it is full again (the generic cell rate algorithm, GCRA), so a full bucket
/// needs no entry. Beyond [`MAX_KEYS`] entries, keys without an entry share one bucket. Memory stays bounded, and a
/// client that invents keys competes only with others that do.
#[derive(Debug)]
pub(super) struct TokenBuckets<K> {
    rate: Rate,
    full_at: HashMap<K, Instant>,
    overflow_full_at: Option<Instant>,
    last_swept: Option<Instant>,
}

impl<K: Eq + Hash> TokenBuckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: HashMap::new(),
            overflow_full_at: None,
            last_swept: None,
        }
    }

    /// Takes tokens from the bucket of the key.
    ///
    /// # Errors
    /// The time after which the bucket has enough tokens.
    pub(super) fn charge(&mut self, key: K, tokens: u32, now: Instant) -> Result<(), Duration> {
        let Rate { per_second, burst } = self.rate;
        if per_second == 0 {
            return Ok(());
        }
        let time = |tokens: u32| Duration::from_secs(1) * tokens / per_second;
        if self.full_at.len() >= MAX_KEYS {
            self.remove_full(now);
        }
        let has_room = self.full_at.len() < MAX_KEYS;
        let known = self.full_at.get(&key).copied();
        let previous = if has_room || known.is_some() {
            known
        } else {
            self.overflow_full_at
        };
        let full_at = previous.map_or(now, |at| at.max(now)) + time(tokens);
        let wait = full_at
            .duration_since(now)
            .saturating_sub(time(burst.max(tokens)));
        if !wait.is_zero() {
            return Err(wait);
        }
        if has_room || known.is_some() {
            self.full_at.insert(key, full_at);
        } else {
            self.overflow_full_at = Some(full_at);
        }
        Ok(())
    }

    /// Removes full buckets, at most once a second, so that a flood of keys costs little.
    fn remove_full(&mut self, now: Instant) {
        let recent = |at: Instant| now.duration_since(at) < Duration::from_secs(1);
        if self.last_swept.is_some_and(recent) {
            return;
        }
        self.last_swept = Some(now);
        self.full_at.retain(|_, at| *at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 20,
    };

    #[test]
    fn a_burst_is_allowed_and_then_the_rate_applies() {
        let start = Instant::now();
        let mut buckets = TokenBuckets::new(RATE);
        for _ in 0..20 {
            assert_eq!(buckets.charge("a", 1, start), Ok(()));
        }
        assert_eq!(
            buckets.charge("a", 1, start),
            Err(Duration::from_millis(100))
        );
        assert_eq!(buckets.charge("b", 1, start), Ok(()));
        let later = start + Duration::from_millis(250);
        assert_eq!(buckets.charge("a", 1, later), Ok(()));
        assert_eq!(buckets.charge("a", 1, later), Ok(()));
        assert_eq!(
            buckets.charge("a", 1, later),
            Err(Duration::from_millis(50))
        );
        // A refused request takes no tokens.
        let much_later = start + Duration::from_secs(60);
        for _ in 0..20 {
            assert_eq!(buckets.charge("a", 1, much_later), Ok(()));
        }
        assert!(buckets.charge("a", 1, much_later).is_err());
    }

    #[test]
    fn a_request_above_the_burst_needs_a_full_bucket() {
        let start = Instant::now();
        let mut buckets = TokenBuckets::new(RATE);
        assert_eq!(buckets.charge("a", 50, start), Ok(()));
        assert!(buckets.charge("a", 1, start).is_err());
    }

    #[test]
    fn a_rate_of_zero_is_unlimited() {
        let mut buckets = TokenBuckets::new(Rate {
            per_second: 0,
            burst: 0,
        });
        let now = Instant::now();
        assert!((0..10_000).all(|_| buckets.charge("a", 1, now).is_ok()));
    }

    #[test]
    fn excess_keys_share_one_bucket() {
        let start = Instant::now();
        let mut buckets = TokenBuckets::new(RATE);
        for key in 0..MAX_KEYS {
            assert_eq!(buckets.charge(key, 1, start), Ok(()));
        }
        let given = (0..1_000).filter(|n| buckets.charge(MAX_KEYS + n, 1, start).is_ok());
        assert_eq!(given.count(), 20);
        assert_eq!(buckets.full_at.len(), MAX_KEYS);
        // Keys with an entry keep their own bucket.
        assert_eq!(buckets.charge(0, 1, start), Ok(()));
        // Entries of full buckets are removed.
        let later = start + Duration::from_secs(3);
        assert_eq!(buckets.charge(1 << 30, 20, later), Ok(()));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
