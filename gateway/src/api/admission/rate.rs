//! Token buckets with a bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Keys that are remembered at the same time. Each takes some 100 bytes.
const MOST_KEYS: usize = 16_384;

/// A rate that a bucket is filled at, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Tokens a second; 0: no limit.
    pub(super) per_second: u32,
    /// Tokens of a full bucket.
    pub(super) burst: u32,
}

/// Token buckets of one rate, one for each key.
///
/// A bucket is kept as the time at which it is full again (the generic cell rate algorithm), so one that is full
/// needs no entry. When there is no room for a further key, keys without an entry share one bucket: memory stays
/// bounded, and whoever makes up keys competes with others that do.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    full_at: HashMap<K, Instant>,
    shared: Option<Instant>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: HashMap::new(),
            shared: None,
            swept: None,
        }
    }

    /// Takes tokens for the key.
    ///
    /// # Errors
    /// The time after which there will be enough.
    pub(super) fn take(&mut self, key: K, tokens: u32, now: Instant) -> Result<(), Duration> {
        let Rate { per_second, burst } = self.rate;
        if per_second == 0 {
            return Ok(());
        }
        let time = |tokens: u32| Duration::from_secs(1) * tokens / per_second;
        if self.full_at.len() >= MOST_KEYS {
            self.sweep(now);
        }
        let room = self.full_at.len() < MOST_KEYS;
        let known = self.full_at.get(&key).copied();
        let kept = if room || known.is_some() {
            known
        } else {
            self.shared
        };
        let full_at = kept.map_or(now, |at| at.max(now)) + time(tokens);
        let over = full_at
            .duration_since(now)
            .saturating_sub(time(burst.max(tokens)));
        if !over.is_zero() {
            return Err(over);
        }
        if room || known.is_some() {
            self.full_at.insert(key, full_at);
        } else {
            self.shared = Some(full_at);
        }
        Ok(())
    }

    /// Forgets buckets that are full, once a second at most: the cost of a flood of keys stays small.
    fn sweep(&mut self, now: Instant) {
        let recent = |at: Instant| now.duration_since(at) < Duration::from_secs(1);
        if self.swept.is_some_and(recent) {
            return;
        }
        self.swept = Some(now);
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
    fn a_burst_is_taken_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE);
        for _ in 0..20 {
            assert_eq!(buckets.take("a", 1, start), Ok(()));
        }
        assert_eq!(buckets.take("a", 1, start), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take("b", 1, start), Ok(()));
        let later = start + Duration::from_millis(250);
        assert_eq!(buckets.take("a", 1, later), Ok(()));
        assert_eq!(buckets.take("a", 1, later), Ok(()));
        assert_eq!(buckets.take("a", 1, later), Err(Duration::from_millis(50)));
        // What was refused costs nothing.
        let much_later = start + Duration::from_secs(60);
        for _ in 0..20 {
            assert_eq!(buckets.take("a", 1, much_later), Ok(()));
        }
        assert!(buckets.take("a", 1, much_later).is_err());
    }

    #[test]
    fn more_tokens_than_a_burst_are_given_to_a_full_bucket() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE);
        assert_eq!(buckets.take("a", 50, start), Ok(()));
        assert!(buckets.take("a", 1, start).is_err());
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        let mut buckets = Buckets::new(Rate {
            per_second: 0,
            burst: 0,
        });
        let now = Instant::now();
        assert!((0..10_000).all(|_| buckets.take("a", 1, now).is_ok()));
    }

    #[test]
    fn a_flood_of_keys_shares_one_bucket_and_takes_no_more_memory() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE);
        for key in 0..MOST_KEYS {
            assert_eq!(buckets.take(key, 1, start), Ok(()));
        }
        let given = (0..1_000).filter(|n| buckets.take(MOST_KEYS + n, 1, start).is_ok());
        assert_eq!(given.count(), 20);
        assert_eq!(buckets.full_at.len(), MOST_KEYS);
        // Those that were there first keep their own.
        assert_eq!(buckets.take(0, 1, start), Ok(()));
        // Entries of buckets that are full again make room.
        let later = start + Duration::from_secs(3);
        assert_eq!(buckets.take(1 << 30, 20, later), Ok(()));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
