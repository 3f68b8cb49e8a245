//! Places in an array: which are taken, and where so many in a row are free.

use std::collections::BTreeMap;

/// The places of an array, as runs that are taken.
#[derive(Debug)]
pub struct Places {
    /// Start and end (exclusive) of each run; runs neither touch nor overlap.
    taken: BTreeMap<u32, u32>,
    most: u32,
}

impl Places {
    /// An array of so many places, all free.
    #[must_use]
    pub const fn new(most: u32) -> Self {
        Self {
            taken: BTreeMap::new(),
            most,
        }
    }

    /// Takes the places; says whether all of them were free. They are taken in any case.
    pub fn take(&mut self, start: u32, size: u32) -> bool {
        if size == 0 {
            return true;
        }
        let (mut from, mut to) = (start, start.saturating_add(size).min(self.most));
        let mut free = true;
        // Runs that overlap or touch become one with it.
        let touching: Vec<(u32, u32)> = self
            .taken
            .range(..=to)
            .rev()
            .take_while(|(_, end)| **end >= from)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (run_start, run_end) in touching {
            free &= run_end <= start || run_start >= start.saturating_add(size);
            from = from.min(run_start);
            to = to.max(run_end);
            self.taken.remove(&run_start);
        }
        self.taken.insert(from, to);
        free
    }

    /// Gives places back that were taken.
    pub fn give_back(&mut self, start: u32, size: u32) {
        let end = start.saturating_add(size).min(self.most);
        let touching: Vec<(u32, u32)> = self
            .taken
            .range(..end)
            .rev()
            .take_while(|(_, run_end)| **run_end > start)
            .map(|(run_start, run_end)| (*run_start, *run_end))
            .collect();
        for (run_start, run_end) in touching {
            self.taken.remove(&run_start);
            if run_start < start {
                self.taken.insert(run_start, start);
            }
            if run_end > end {
                self.taken.insert(end, run_end);
            }
        }
    }

    /// Finds so many free places in a row, the first there are, and takes them.
    pub fn find(&mut self, size: u32) -> Option<u32> {
        let mut start = 0;
        for (run_start, run_end) in &self.taken {
            if run_start - start >= size {
                break;
            }
            start = *run_end;
        }
        if self.most.checked_sub(start)? < size {
            return None;
        }
        self.take(start, size);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_fit() {
        let mut places = Places::new(10);
        assert!(places.take(2, 3));
        assert_eq!(places.find(2), Some(0));
        assert_eq!(places.find(3), Some(5));
        assert_eq!(places.find(3), None);
        assert_eq!(places.find(2), Some(8));
        assert_eq!(places.find(1), None);
        assert!(!places.take(4, 1));
    }

    proptest! {
        #[test]
        fn what_is_given_back_is_free(steps in proptest::collection::vec((0u32..60, 0u32..9, any::<bool>()), 0..60)) {
            let mut places = Places::new(64);
            let mut model = [false; 64];
            for (start, size, take) in steps {
                let range = start as usize..((start + size) as usize).min(64);
                if take {
                    let free = !model[range.clone()].contains(&true);
                    prop_assert_eq!(places.take(start, size), free);
                    model[range].fill(true);
                } else {
                    places.give_back(start, size);
                    model[range].fill(false);
                }
            }
            let mut free = model.iter().filter(|taken| !**taken).count();
            while let Some(place) = places.find(1) {
                prop_assert!(!model[place as usize]);
                free -= 1;
            }
            prop_assert_eq!(free, 0);
        }

        #[test]
        fn nothing_is_given_out_twice(requests in proptest::collection::vec((0u32..60, 0u32..9, any::<bool>()), 0..40)) {
            let mut places = Places::new(64);
            let mut model = [false; 64];
            for (start, size, chosen) in requests {
                let start = if chosen {
                    let range = start as usize..((start + size) as usize).min(64);
                    let free = !model[range].contains(&true);
                    prop_assert_eq!(places.take(start, size), free);
                    Some(start)
                } else {
                    let found = places.find(size);
                    let fits = size == 0 || model.windows(size as usize).any(|run| !run.contains(&true));
                    prop_assert_eq!(found.is_some(), fits);
                    if let Some(start) = found {
                        let range = start as usize..(start + size) as usize;
                        prop_assert!(!model[range].contains(&true));
                    }
                    found
                };
                for place in start.into_iter().flat_map(|start| start..(start + size).min(64)) {
                    model[place as usize] = true;
                }
            }
        }
    }
}
