//! Which backend has which place in the array of backends. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::maps::{Backend, MOST_BACKENDS};

use crate::{
    dataplane::{compile::Observed, contents::Contents},
    model::{State, service::UnhealthyFlows},
};

/// The slots of backends: who has one keeps it.
pub(super) struct BackendSlots {
    taken: HashMap<(u32, IpAddr), (u32, u32)>,
    /// Slots that nobody has now, with the generation of the next one who gets them.
    free: BTreeMap<u32, u32>,
    used: u32,
    /// Slots whose backend has left.
    left: BTreeSet<u32>,
}

impl BackendSlots {
    pub(super) fn new(state: &State, observed: &Observed, current: &Contents) -> Self {
        let mut wanted = BTreeSet::new();
        for (reference, record) in &state.services {
            let spec = &record.object.spec;
            let resets = spec.health_check.unhealthy_flows == UnhealthyFlows::Reset;
            for resource in &spec.resources {
                let id = record.object.resource_numbers.get(&resource.name).copied();
                for backend in &resource.backends {
                    // It leaves its slot, and with that its flows end.
                    if resets && observed.is_unhealthy(reference, resource, backend.address) {
                        continue;
                    }
                    wanted.insert((id.unwrap_or(0), backend.address));
                }
            }
        }
        let mut slots = Self {
            taken: HashMap::new(),
            free: BTreeMap::new(),
            used: 0,
            left: BTreeSet::new(),
        };
        for (slot, backend) in &current.backends {
            let owner = (backend.resource, IpAddr::from(backend.address));
            if backend.resource != 0 && wanted.contains(&owner) {
                slots.taken.insert(owner, (*slot, backend.generation));
            } else if backend.resource != 0 {
                slots.free.insert(*slot, backend.generation.wrapping_add(1));
                slots.left.insert(*slot);
            } else {
                slots.free.insert(*slot, backend.generation);
            }
            slots.used = slots.used.max(slot + 1);
        }
        slots
    }

    /// The backend's slot and generation.
    pub(super) fn of(&mut self, resource: u32, address: IpAddr) -> Option<(u32, u32)> {
        let owner = (resource, address);
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

    /// The free slots, with nothing in them but their generation.
    pub(super) fn freed(self) -> impl Iterator<Item = (u32, Backend)> {
        self.free.into_iter().map(|(slot, generation)| {
            let backend = Backend {
                generation,
                ..Backend::default()
            };
            (slot, backend)
        })
    }
}
