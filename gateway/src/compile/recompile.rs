//! Drives compilations: of the whole state, or of the objects that a change concerns. Pure.
//!
//! The present map contents are an input as well: slots and ranges that are in use are kept, so that a change moves no
//! more entries than necessary.

use std::{collections::HashSet, net::IpAddr};

use crate::{
    compile::{
        backend_slots::BackendSlots,
        capacity::CapacityError,
        compile_cache::{CompileCache, Delta, EntryKey, ObjectId, copy_entry},
        compiler::Compiler,
        dirty::DirtyObjects,
        map_snapshot::MapSnapshot,
        nat46_usage::EndpointUsage,
        observed::Observed,
    },
    model::State,
};

/// Compiles the whole state: returns the contents that the maps should have, and what they have no room for.
#[must_use]
pub fn compile(
    state: &State,
    observed: &Observed,
    current: &MapSnapshot,
) -> (MapSnapshot, Vec<CapacityError>) {
    let mut cache = CompileCache::default();
    let delta = cache.rebuild(state, observed, current);
    (delta.new, cache.capacity_errors().cloned().collect())
}

impl CompileCache {
    /// Compiles the whole state, and compares it with all that the maps hold.
    #[must_use]
    pub fn rebuild(&mut self, state: &State, observed: &Observed, current: &MapSnapshot) -> Delta {
        *self = Self {
            backends: BackendSlots::new(current),
            ..Self::default()
        };
        // Ranges in use stay reserved until the plan is applied: a packet in progress may have read the old offset
        // already.
        for port in current.ports.values() {
            let nat_size = port.nat_size_v4 + port.nat_size_v6;
            self.nat.reserve(port.nat_offset, nat_size);
            self.maglev.reserve(port.maglev_offset, port.maglev_size);
        }
        for attachment in current.attachments.values() {
            self.attachments.reserve(attachment.slot, 1);
        }
        let dirty = DirtyObjects {
            networks: state.networks.keys().cloned().collect(),
            services: state.services.keys().cloned().collect(),
            endpoints: state.endpoints.keys().cloned().collect(),
        };
        let mut new = self.compile_dirty(state, observed, current, dirty);
        let used_slots: HashSet<u32> = new.backends.keys().copied().collect();
        let remaining: Vec<_> = self.backends.owners().copied().collect();
        for owner in remaining {
            let slot = self.backends.get_or_allocate(owner).map(|(slot, _)| slot);
            if slot.is_some_and(|slot| !used_slots.contains(&slot)) {
                self.backends.release(&owner);
            }
        }
        new.backends.extend(self.backends.free_slots());
        Delta {
            old: current.clone(),
            new,
        }
    }

    /// Compiles the dirty objects and those that depend on them.
    #[must_use]
    pub fn update(
        &mut self,
        state: &State,
        observed: &Observed,
        current: &MapSnapshot,
        dirty: DirtyObjects,
    ) -> Delta {
        let mut new = self.compile_dirty(state, observed, current, dirty);
        let mut old = MapSnapshot::default();
        for (owner, keys) in &self.pending {
            for key in self.keys.get(owner).into_iter().flatten() {
                copy_entry(current, *key, &mut old);
                if let EntryKey::Backend(slot) = key
                    && !keys.contains(key)
                    && let Some(backend) = current.backends.get(slot)
                {
                    let owner = (backend.resource, IpAddr::from(backend.address));
                    let released = self.backends.release(&owner);
                    new.backends.extend(released);
                }
            }
            for key in keys {
                if let EntryKey::Backend(_) = key {
                    copy_entry(current, *key, &mut old);
                }
            }
        }
        Delta { old, new }
    }

    /// Compiles the dirty objects into a snapshot, and records their entries as pending.
    fn compile_dirty(
        &mut self,
        state: &State,
        observed: &Observed,
        current: &MapSnapshot,
        mut dirty: DirtyObjects,
    ) -> MapSnapshot {
        for reference in &dirty.endpoints {
            let record = state.endpoints.get(reference);
            let new = record.map(|record| EndpointUsage::from_endpoint(state, reference, record));
            let new = new.unwrap_or_default();
            let old = self.endpoint_usage.remove(reference).unwrap_or_default();
            let (networks, services) = self.nat46_usage.replace(&old, &new);
            dirty.networks.extend(networks);
            dirty.services.extend(services);
            if record.is_some() {
                self.endpoint_usage.insert(reference.clone(), new);
            }
        }
        // Objects that did not fit are compiled again, because entries may have become free.
        for owner in self.capacity_errors.keys().cloned() {
            match owner {
                ObjectId::Network(reference) => dirty.networks.insert(reference),
                ObjectId::Service(reference) => dirty.services.insert(reference),
                ObjectId::Endpoint(reference) => dirty.endpoints.insert(reference),
            };
        }
        self.pending.clear();
        let mut compiler = Compiler::new(state, observed, current, self);
        for reference in dirty.networks {
            if let Some(record) = state.networks.get(&reference) {
                compiler.compile_network(&reference, record);
            }
            compiler.finish_object(ObjectId::Network(reference));
        }
        for reference in dirty.services {
            if let Some(record) = state.services.get(&reference) {
                compiler.compile_service(&reference, record);
            }
            compiler.finish_object(ObjectId::Service(reference));
        }
        for reference in dirty.endpoints {
            if let Some(record) = state.endpoints.get(&reference) {
                compiler.compile_endpoint(&reference, record);
            }
            compiler.finish_object(ObjectId::Endpoint(reference));
        }
        compiler.into_snapshot()
    }
}
