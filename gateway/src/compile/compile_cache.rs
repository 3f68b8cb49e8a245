//! Cache of the last compilation: the map entries of each object, and the free slots and ranges. Pure.
//!
//! With it a change is compiled by itself, without the rest of the state.

use std::collections::{BTreeMap, HashMap};

use gateway_common::maps::{
    AddressKey, MAX_ATTACHMENTS, MAX_MAGLEV_ENTRIES, MAX_NAT_ADDRESSES, PortKey,
};

use crate::{
    compile::{
        backend_slots::BackendSlots,
        capacity::CapacityError,
        map_snapshot::MapSnapshot,
        nat46_usage::{EndpointUsage, Nat46Usage},
        range_allocator::RangeAllocator,
    },
    model::Reference,
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
    pub(super) keys: HashMap<ObjectId, Vec<EntryKey>>,
    pub(super) endpoint_usage: HashMap<Reference, EndpointUsage>,
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
}

/// Copies the entries under the key.
pub(super) fn copy_entry(from: &MapSnapshot, key: EntryKey, to: &mut MapSnapshot) {
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
