//! Allocator of backend slots. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::maps::{Backend, MAX_BACKENDS};

use crate::compile::map_snapshot::MapSnapshot;

/// Owner of a backend slot: number of the resource, and address of the backend.
pub(super) type BackendId = (u32, IpAddr);

/// Backend slots and their generations. A backend keeps its slot for as long as its resource lists it.
#[derive(Debug, Default)]
pub(super) struct BackendSlots {
    allocated: HashMap<BackendId, (u32, u32)>,
    /// Free slots, with the generation of the next backend that gets the slot.
    free: BTreeMap<u32, u32>,
    used: u32,
    /// Slots that were released by a plan that is not applied yet.
    released: BTreeSet<u32>,
}

impl BackendSlots {
    /// Returns the slots as the maps have them.
    pub(super) fn new(current: &MapSnapshot) -> Self {
        let mut slots = Self::default();
        for (slot, backend) in &current.backends {
            if backend.resource == 0 {
                slots.free.insert(*slot, backend.generation);
            } else {
                let owner = (backend.resource, IpAddr::from(backend.address));
                slots.allocated.insert(owner, (*slot, backend.generation));
            }
            slots.used = slots.used.max(slot + 1);
        }
        slots
    }

    /// Returns the backend's slot and generation. Allocates a slot if the backend has none.
    pub(super) fn get_or_allocate(&mut self, owner: BackendId) -> Option<(u32, u32)> {
        if let Some(allocated) = self.allocated.get(&owner) {
            return Some(*allocated);
        }
        // A slot that the present plan releases is the last choice, because flows of its old backend still exist.
        let idle = self
            .free
            .keys()
            .find(|slot| !self.released.contains(slot))
            .copied();
        let slot = match idle {
            Some(slot) => slot,
            None if self.used < MAX_BACKENDS => {
                self.used += 1;
                self.free.insert(self.used - 1, 0);
                self.used - 1
            }
            None => *self.free.keys().next()?,
        };
        let generation = self.free.remove(&slot)?;
        self.released.remove(&slot);
        self.allocated.insert(owner, (slot, generation));
        Some((slot, generation))
    }

    /// Releases the backend's slot. Returns the slot and its new content.
    pub(super) fn release(&mut self, owner: &BackendId) -> Option<(u32, Backend)> {
        let (slot, generation) = self.allocated.remove(owner)?;
        let generation = generation.wrapping_add(1);
        self.free.insert(slot, generation);
        self.released.insert(slot);
        let backend = Backend {
            generation,
            ..Backend::default()
        };
        Some((slot, backend))
    }

    /// Returns the backends that have a slot.
    pub(super) fn owners(&self) -> impl Iterator<Item = &BackendId> {
        self.allocated.keys()
    }

    /// Returns the free slots with their content, which is nothing but a generation.
    pub(super) fn free_slots(&self) -> impl Iterator<Item = (u32, Backend)> {
        self.free.iter().map(|(slot, generation)| {
            let backend = Backend {
                generation: *generation,
                ..Backend::default()
            };
            (*slot, backend)
        })
    }

    /// Records that the plan was applied, so that the slots that it released may be used again.
    pub(super) fn commit_releases(&mut self) {
        self.released.clear();
    }
}
