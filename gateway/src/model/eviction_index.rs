//! Bounded list whose space is shared fairly between causes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// List of bounded length. If it is full, the oldest entry of the cause with the most entries is evicted. A cause can
/// evict another cause's entries only while the other has more entries, so each cause keeps at least an even share.
#[derive(Clone, Debug)]
pub struct EvictionIndex<C, I> {
    by_cause: BTreeMap<C, BTreeSet<I>>,
    len: usize,
}

impl<C, I> Default for EvictionIndex<C, I> {
    fn default() -> Self {
        Self {
            by_cause: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<C: Ord + Clone, I: Ord + Clone> EvictionIndex<C, I> {
    /// Adds an entry. Returns the entry that is evicted if the list then has more than `max`.
    ///
    /// # Examples
    /// ```
    /// use gateway::model::eviction_index::EvictionIndex;
    ///
    /// let mut index = EvictionIndex::default();
    /// assert_eq!(index.insert("quiet", 1, 3), None);
    /// assert_eq!(index.insert("flood", 2, 3), None);
    /// assert_eq!(index.insert("flood", 3, 3), None);
    /// assert_eq!(index.insert("flood", 4, 3), Some(2));
    /// ```
    pub fn insert(&mut self, cause: C, entry: I, max: usize) -> Option<I> {
        if self.by_cause.entry(cause).or_default().insert(entry) {
            self.len += 1;
        }
        if self.len <= max {
            return None;
        }
        let causes = self.by_cause.iter();
        let largest = causes.max_by_key(|(_, entries)| (entries.len(), Reverse(entries.first())));
        let cause = largest?.0.clone();
        let entries = self.by_cause.get_mut(&cause)?;
        let evicted = entries.pop_first();
        if entries.is_empty() {
            self.by_cause.remove(&cause);
        }
        self.len -= usize::from(evicted.is_some());
        evicted
    }

    /// Returns true if the list has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes an entry.
    pub fn remove(&mut self, cause: &C, entry: &I) {
        if let Some(entries) = self.by_cause.get_mut(cause) {
            self.len -= usize::from(entries.remove(entry));
            if entries.is_empty() {
                self.by_cause.remove(cause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_evicts_its_own_entries() {
        let mut ring = EvictionIndex::default();
        for entry in 0..4 {
            assert_eq!(ring.insert("quiet", entry, 10), None);
        }
        let evicted: Vec<i32> = (4..10_000)
            .filter_map(|entry| ring.insert("flood", entry, 10))
            .collect();
        assert!(
            evicted.iter().all(|entry| *entry >= 4),
            "an entry of the quiet cause was evicted"
        );
        assert_eq!(evicted.len(), 9_996 - 6);
        assert_eq!(ring.len, 10);
    }

    #[test]
    fn causes_share_evenly_and_lose_their_oldest_entries() {
        let mut ring = EvictionIndex::default();
        for entry in 0..10 {
            ring.insert("first", entry, 10);
        }
        let evicted: Vec<i32> = (10..15)
            .filter_map(|entry| ring.insert("second", entry, 10))
            .collect();
        assert_eq!(evicted, [0, 1, 2, 3, 4]);
        // The shares are even now, so the next entry of the second cause evicts one of its own.
        assert_eq!(ring.insert("second", 15, 10), Some(10));
        ring.remove(&"first", &5);
        assert_eq!(ring.insert("third", 16, 10), None);
    }
}
