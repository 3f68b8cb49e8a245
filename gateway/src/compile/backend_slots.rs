//! Which backend has which place in the array of backends. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::maps::{Backend, MAX_BACKENDS};

use crate::compile::map_snapshot::MapSnapshot;

/// Who has a slot: a resource's number, and an address.
pub(super) type BackendId = (u32, IpAddr);

/// The slots of backends: who has one keeps it.
#[derive(Debug, Default)]
pub(super) struct BackendSlots {
    allocated: HashMap<BackendId, (u32, u32)>,
    /// Slots that nobody has now, with the generation of the next one who gets them.
    free: BTreeMap<u32, u32>,
    used: u32,
    /// Slots whose backend has left, until that is carried out.
    released: BTreeSet<u32>,
}

impl BackendSlots {
    /// As the maps have them.
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

    /// The backend's slot and generation.
    pub(super) fn get_or_allocate(&mut self, owner: BackendId) -> Option<(u32, u32)> {
        if let Some(allocated) = self.allocated.get(&owner) {
            return Some(*allocated);
        }
        // A slot that was left only now is the last choice: its flows are still being refused.
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

    /// The backend leaves its slot: what is in there from now on.
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

    /// Those who have a slot.
    pub(super) fn owners(&self) -> impl Iterator<Item = &BackendId> {
        self.allocated.keys()
    }

    /// The slots that nobody has, with nothing in them but their generation.
    pub(super) fn free_slots(&self) -> impl Iterator<Item = (u32, Backend)> {
        self.free.iter().map(|(slot, generation)| {
            let backend = Backend {
                generation: *generation,
                ..Backend::default()
            };
            (*slot, backend)
        })
    }

    /// What was left is left: it is carried out.
    pub(super) fn commit_releases(&mut self) {
        self.released.clear();
    }
}
