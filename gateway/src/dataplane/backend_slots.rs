//! Which backend has which place in the array of backends. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::maps::{Backend, MOST_BACKENDS};

use crate::dataplane::contents::Contents;

/// Who has a slot: a resource's number, and an address.
pub(super) type Owner = (u32, IpAddr);

/// The slots of backends: who has one keeps it.
#[derive(Debug, Default)]
pub(super) struct BackendSlots {
    taken: HashMap<Owner, (u32, u32)>,
    /// Slots that nobody has now, with the generation of the next one who gets them.
    free: BTreeMap<u32, u32>,
    used: u32,
    /// Slots whose backend has left, until that is carried out.
    left: BTreeSet<u32>,
}

impl BackendSlots {
    /// As the maps have them.
    pub(super) fn new(current: &Contents) -> Self {
        let mut slots = Self::default();
        for (slot, backend) in &current.backends {
            if backend.resource == 0 {
                slots.free.insert(*slot, backend.generation);
            } else {
                let owner = (backend.resource, IpAddr::from(backend.address));
                slots.taken.insert(owner, (*slot, backend.generation));
            }
            slots.used = slots.used.max(slot + 1);
        }
        slots
    }

    /// The backend's slot and generation.
    pub(super) fn of(&mut self, owner: Owner) -> Option<(u32, u32)> {
        if let Some(found) = self.taken.get(&owner) {
            return Some(*found);
        }
        // A slot that was left only now is the last choice: its flows are still being refused.
        let rested = self
            .free
            .keys()
            .find(|slot| !self.left.contains(slot))
            .copied();
        let slot = match rested {
            Some(slot) => slot,
            None if self.used < MOST_BACKENDS => {
                self.used += 1;
                self.free.insert(self.used - 1, 0);
                self.used - 1
            }
            None => *self.free.keys().next()?,
        };
        let generation = self.free.remove(&slot)?;
        self.left.remove(&slot);
        self.taken.insert(owner, (slot, generation));
        Some((slot, generation))
    }

    /// The backend leaves its slot: what is in there from now on.
    pub(super) fn release(&mut self, owner: &Owner) -> Option<(u32, Backend)> {
        let (slot, generation) = self.taken.remove(owner)?;
        let generation = generation.wrapping_add(1);
        self.free.insert(slot, generation);
        self.left.insert(slot);
        let backend = Backend {
            generation,
            ..Backend::default()
        };
        Some((slot, backend))
    }

    /// Those who have a slot.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.taken.keys()
    }

    /// The slots that nobody has, with nothing in them but their generation.
    pub(super) fn free(&self) -> impl Iterator<Item = (u32, Backend)> {
        self.free.iter().map(|(slot, generation)| {
            let backend = Backend {
                generation: *generation,
                ..Backend::default()
            };
            (*slot, backend)
        })
    }

    /// What was left is left: it is carried out.
    pub(super) fn settle(&mut self) {
        self.left.clear();
    }
}
