//! Which entries of the maps are whose, and which places are free: what lets a change be compiled by
//! itself. Pure.

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

/// An entry that belongs to an object, or a run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum EntryKey {
    Attachment(u32),
    /// An attachment's slot: what leaves by it, and by which device.
    Egress(u32),
    Address(AddressKey),
    Port(PortKey),
    Maglev(u32, u32),
    Backend(u32),
    Nat(u32, u32),
    /// A connection's slot: its link and its limits.
    Connection(u32),
}

/// The part of the maps that some objects have: as it is, and as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// As it is.
    pub old: MapSnapshot,
    /// As it should be.
    pub new: MapSnapshot,
}

/// An object that has a part of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ObjectId {
    Network(Reference),
    Service(Reference),
    Endpoint(Reference),
}

/// What was compiled so far: which entries are whose, and which places are free.
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
    /// What the entries will be of that are being carried out.
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
    /// What found no place.
    pub fn capacity_errors(&self) -> impl Iterator<Item = &CapacityError> {
        self.capacity_errors.values().flatten()
    }

    /// Everything anew, whatever the maps hold.
    #[must_use]
    pub fn rebuild(&mut self, state: &State, observed: &Observed, current: &MapSnapshot) -> Delta {
        *self = Self {
            backends: BackendSlots::new(current),
            ..Self::default()
        };
        // What is in use keeps its places until it is no longer in use: a packet on its way may have
        // read the old region's place already.
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

    /// The part of the objects in the scope, and of those that depend on them.
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

    /// What was compiled last is carried out: what it gave up is free.
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

    /// After a rebuild: of all that was taken at its start, what nothing has now.
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
        // There may be room by now for what found none.
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

/// Copies what is under the key.
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
