//! Cache of the last compilation: the map entries of each object, and the free slots and ranges. Pure.
//!
//! With it a change is compiled by itself, without the rest of the state.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use gateway_common::maps::{
    AddressKey, MAX_ATTACHMENTS, MAX_MAGLEV_ENTRIES, MAX_NAT_ADDRESSES, PortKey,
};

use crate::{
    compile::{
        backend_slots::BackendSlots,
        compiler::{CapacityError, Compiler},
        dirty::DirtyObjects,
        map_snapshot::MapSnapshot,
        nat46_usage::{EndpointUsage, Nat46Usage},
        observed::Observed,
        range_allocator::RangeAllocator,
    },
    model::{Reference, State},
};

/// Key of a map entry that belongs to an object, or a range of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum EntryKey {
    Attachment(u32),
    /// An attachment's slot, in the maps of egress interfaces and of devices.
    Egress(u32),
    Address(AddressKey),
    Port(PortKey),
    Maglev(u32, u32),
    Backend(u32),
    Nat(u32, u32),
    /// A connection's slot, in the maps of connections and of limits.
    Connection(u32),
}

/// Present and wanted map entries of some objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Entries that the maps have.
    pub old: MapSnapshot,
    /// Entries that the maps should have.
    pub new: MapSnapshot,
}

/// Identity of an object that owns map entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ObjectId {
    Network(Reference),
    Service(Reference),
    Endpoint(Reference),
}

/// Map entries of each compiled object, and allocators of slots and ranges.
#[derive(Debug)]
pub struct CompileCache {
    keys: HashMap<ObjectId, Vec<EntryKey>>,
    endpoint_usage: HashMap<Reference, EndpointUsage>,
    pub(super) nat46_usage: Nat46Usage,
    pub(super) attachments: RangeAllocator,
    pub(super) nat: RangeAllocator,
    pub(super) maglev: RangeAllocator,
    pub(super) backends: BackendSlots,
    pub(super) capacity_errors: BTreeMap<ObjectId, Vec<CapacityError>>,
    /// Entries of the objects that were compiled last, until the plan is applied.
    pub(super) pending: Vec<(ObjectId, Vec<EntryKey>)>,
}

impl Default for CompileCache {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            endpoint_usage: HashMap::new(),
            nat46_usage: Nat46Usage::default(),
            attachments: RangeAllocator::new(MAX_ATTACHMENTS),
            nat: RangeAllocator::new(MAX_NAT_ADDRESSES),
            maglev: RangeAllocator::new(MAX_MAGLEV_ENTRIES),
            backends: BackendSlots::default(),
            capacity_errors: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

impl CompileCache {
    /// Returns the errors of all objects for which a map is full.
    pub fn capacity_errors(&self) -> impl Iterator<Item = &CapacityError> {
        self.capacity_errors.values().flatten()
    }

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
        let mut new = self.compile(state, observed, current, dirty);
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
        let mut new = self.compile(state, observed, current, dirty);
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

    /// Records that the last plan was applied, and releases the slots and ranges that it gave up.
    pub fn commit_allocations(&mut self) {
        for (owner, keys) in std::mem::take(&mut self.pending) {
            let old = if keys.is_empty() {
                self.keys.remove(&owner)
            } else {
                self.keys.insert(owner, keys.clone())
            };
            for key in old.into_iter().flatten().filter(|key| !keys.contains(key)) {
                self.release(key);
            }
        }
        self.backends.commit_releases();
    }

    /// Records that the plan of a rebuild was applied, and releases all ranges that no object has.
    pub fn commit_rebuilt_allocations(&mut self) {
        self.commit_allocations();
        self.nat = RangeAllocator::new(MAX_NAT_ADDRESSES);
        self.maglev = RangeAllocator::new(MAX_MAGLEV_ENTRIES);
        self.attachments = RangeAllocator::new(MAX_ATTACHMENTS);
        for key in self.keys.values().flatten() {
            match *key {
                EntryKey::Egress(slot) => self.attachments.reserve(slot, 1),
                EntryKey::Maglev(start, size) => self.maglev.reserve(start, size),
                EntryKey::Nat(start, size) => self.nat.reserve(start, size),
                _ => true,
            };
        }
    }

    fn release(&mut self, key: EntryKey) {
        match key {
            EntryKey::Egress(slot) => self.attachments.release(slot, 1),
            EntryKey::Maglev(start, size) => self.maglev.release(start, size),
            EntryKey::Nat(start, size) => self.nat.release(start, size),
            _ => {}
        }
    }

    fn compile(
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
                compiler.network(&reference, record);
            }
            compiler.finish_object(ObjectId::Network(reference));
        }
        for reference in dirty.services {
            if let Some(record) = state.services.get(&reference) {
                compiler.service(&reference, record);
            }
            compiler.finish_object(ObjectId::Service(reference));
        }
        for reference in dirty.endpoints {
            if let Some(record) = state.endpoints.get(&reference) {
                compiler.endpoint(&reference, record);
            }
            compiler.finish_object(ObjectId::Endpoint(reference));
        }
        compiler.into_snapshot()
    }
}

/// Copies the entries under the key.
fn copy_entry(from: &MapSnapshot, key: EntryKey, to: &mut MapSnapshot) {
    fn copy<K: Ord + Copy, V: Copy>(from: &BTreeMap<K, V>, key: K, to: &mut BTreeMap<K, V>) {
        if let Some(value) = from.get(&key) {
            to.insert(key, *value);
        }
    }
    match key {
        EntryKey::Attachment(ifindex) => copy(&from.attachments, ifindex, &mut to.attachments),
        EntryKey::Egress(slot) => {
            copy(&from.egress, slot, &mut to.egress);
            copy(&from.tx_ports, slot, &mut to.tx_ports);
        }
        EntryKey::Address(address) => copy(&from.addresses, address, &mut to.addresses),
        EntryKey::Port(port) => copy(&from.ports, port, &mut to.ports),
        EntryKey::Maglev(start, size) => {
            let entries = from.maglev.range(start..start.saturating_add(size));
            to.maglev
                .extend(entries.map(|(index, slot)| (*index, *slot)));
        }
        EntryKey::Backend(slot) => copy(&from.backends, slot, &mut to.backends),
        EntryKey::Nat(start, size) => {
            let entries = from.nat_addresses.range(start..start.saturating_add(size));
            to.nat_addresses
                .extend(entries.map(|(index, nat)| (*index, *nat)));
        }
        EntryKey::Connection(slot) => {
            copy(&from.connections, slot, &mut to.connections);
            copy(&from.limits, slot, &mut to.limits);
        }
    }
}
