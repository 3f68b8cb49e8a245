//! Allocator of ranges of array entries. Pure.

use std::collections::BTreeMap;

/// First-fit allocator of ranges in an array.
#[derive(Debug)]
pub struct RangeAllocator {
    /// Start and end (exclusive) of each reserved run. Runs neither touch nor overlap.
    reserved: BTreeMap<u32, u32>,
    capacity: u32,
}

impl RangeAllocator {
    /// Returns an allocator for an array of `capacity` entries, all free.
    #[must_use]
    pub const fn new(capacity: u32) -> Self {
        Self {
            reserved: BTreeMap::new(),
            capacity,
        }
    }

    /// Reserves a range, and returns true if all of it was free. The range is reserved in any case.
    pub fn reserve(&mut self, start: u32, size: u32) -> bool {
        if size == 0 {
            return true;
        }
        let (mut from, mut to) = (start, start.saturating_add(size).min(self.capacity));
        let mut free = true;
        // Runs that overlap or touch the range are merged with it.
        let touching: Vec<(u32, u32)> = self
            .reserved
            .range(..=to)
            .rev()
            .take_while(|(_, end)| **end >= from)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (run_start, run_end) in touching {
            free &= run_end <= start || run_start >= start.saturating_add(size);
            from = from.min(run_start);
            to = to.max(run_end);
            self.reserved.remove(&run_start);
        }
        self.reserved.insert(from, to);
        free
    }

    /// Releases a range. Entries that were free stay free.
    pub fn release(&mut self, start: u32, size: u32) {
        let end = start.saturating_add(size).min(self.capacity);
        let touching: Vec<(u32, u32)> = self
            .reserved
            .range(..end)
            .rev()
            .take_while(|(_, run_end)| **run_end > start)
            .map(|(run_start, run_end)| (*run_start, *run_end))
            .collect();
        for (run_start, run_end) in touching {
            self.reserved.remove(&run_start);
            if run_start < start {
                self.reserved.insert(run_start, start);
            }
            if run_end > end {
                self.reserved.insert(end, run_end);
            }
        }
    }

    /// Reserves the first free range of `size` entries, and returns its start.
    pub fn allocate(&mut self, size: u32) -> Option<u32> {
        let mut start = 0;
        for (run_start, run_end) in &self.reserved {
            if run_start - start >= size {
                break;
            }
            start = *run_end;
        }
        if self.capacity.checked_sub(start)? < size {
            return None;
        }
        self.reserve(start, size);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_fit() {
        let mut allocator = RangeAllocator::new(10);
        assert!(allocator.reserve(2, 3));
        assert_eq!(allocator.allocate(2), Some(0));
        assert_eq!(allocator.allocate(3), Some(5));
        assert_eq!(allocator.allocate(3), None);
        assert_eq!(allocator.allocate(2), Some(8));
        assert_eq!(allocator.allocate(1), None);
        assert!(!allocator.reserve(4, 1));
    }

    proptest! {
        #[test]
        fn released_ranges_are_free(steps in proptest::collection::vec((0u32..60, 0u32..9, any::<bool>()), 0..60)) {
            let mut allocator = RangeAllocator::new(64);
            let mut model = [false; 64];
            for (start, size, reserve) in steps {
                let range = start as usize..((start + size) as usize).min(64);
                if reserve {
                    let free = !model[range.clone()].contains(&true);
                    prop_assert_eq!(allocator.reserve(start, size), free);
                    model[range].fill(true);
                } else {
                    allocator.release(start, size);
                    model[range].fill(false);
                }
            }
            let mut free = model.iter().filter(|taken| !**taken).count();
            while let Some(index) = allocator.allocate(1) {
                prop_assert!(!model[index as usize]);
                free -= 1;
            }
            prop_assert_eq!(free, 0);
        }

        #[test]
        fn allocated_ranges_never_overlap(requests in proptest::collection::vec((0u32..60, 0u32..9, any::<bool>()), 0..40)) {
            let mut allocator = RangeAllocator::new(64);
            let mut model = [false; 64];
            for (start, size, chosen) in requests {
                let start = if chosen {
                    let range = start as usize..((start + size) as usize).min(64);
                    let free = !model[range].contains(&true);
                    prop_assert_eq!(allocator.reserve(start, size), free);
                    Some(start)
                } else {
                    let allocated = allocator.allocate(size);
                    let fits = size == 0 || model.windows(size as usize).any(|run| !run.contains(&true));
                    prop_assert_eq!(allocated.is_some(), fits);
                    if let Some(start) = allocated {
                        let range = start as usize..(start + size) as usize;
                        prop_assert!(!model[range].contains(&true));
                    }
                    allocated
                };
                for index in start.into_iter().flat_map(|start| start..(start + size).min(64)) {
                    model[index as usize] = true;
                }
            }
        }
    }
}
