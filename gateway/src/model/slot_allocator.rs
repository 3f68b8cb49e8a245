//! Allocation of slots, the indexes of connections in the data path's arrays.

use std::collections::BTreeSet;

/// Allocator of the lowest free slot. It stores the free slots below the highest used one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotAllocator {
    free: BTreeSet<u32>,
    /// First slot from which on all slots are free.
    end: u32,
}

impl SlotAllocator {
    /// Returns the lowest free slot.
    #[must_use]
    pub fn lowest_free(&self) -> u32 {
        self.free.first().copied().unwrap_or(self.end)
    }

    /// Marks a slot as used.
    pub fn reserve(&mut self, slot: u32) {
        if slot >= self.end {
            self.free.extend(self.end..slot);
            self.end = slot + 1;
        } else {
            self.free.remove(&slot);
        }
    }

    /// Marks a slot as free.
    pub fn release(&mut self, slot: u32) {
        if slot < self.end {
            self.free.insert(slot);
        }
        while self.end > 0 && self.free.remove(&(self.end - 1)) {
            self.end -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lowest_free_slot_is_allocated(steps in proptest::collection::vec((0u32..20, any::<bool>()), 0..60)) {
            let mut slots = SlotAllocator::default();
            let mut model = BTreeSet::new();
            for (slot, take) in steps {
                if take {
                    slots.reserve(slot);
                    model.insert(slot);
                } else {
                    slots.release(slot);
                    model.remove(&slot);
                }
                let lowest = (0..).find(|slot| !model.contains(slot));
                prop_assert_eq!(Some(slots.lowest_free()), lowest);
            }
        }
    }
}
