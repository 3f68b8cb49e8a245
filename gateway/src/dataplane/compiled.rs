//! Which entries of the maps are whose, and which places are free: what lets a change be compiled by
//! itself. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use gateway_common::maps::{
    AddressKey, MAGLEV_PLACES, MOST_ATTACHMENTS, MOST_NAT_ADDRESSES, PortKey,
};

use crate::{
    dataplane::{
        backend_slots::BackendSlots,
        compile::{Compiler, NoRoom},
        contents::Contents,
        mixed::{Mixed, Share},
        observed::Observed,
        places::Places,
        scope::Scope,
    },
    model::{Reference, State},
};

/// An entry that belongs to an object, or a run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Attachment(u32),
    /// An attachment's slot: what leaves by it, and by which device.
    Egress(u32),
    Address(AddressKey),
    Port(PortKey),
    Maglev(u32, u32),
    Backend(u32),
    Nat(u32, u32),
    /// A connection's slot: its link and its limits.
    Link(u32),
}

/// The part of the maps that some objects have: as it is, and as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// As it is.
    pub old: Contents,
    /// As it should be.
    pub new: Contents,
}

/// An object that has a part of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owner {
    Network(Reference),
    Service(Reference),
    Endpoint(Reference),
}

/// What was compiled so far: which entries are whose, and which places are free.
#[derive(Debug)]
pub struct Compiled {
    keys: HashMap<Owner, Vec<Key>>,
    shares: HashMap<Reference, Share>,
    pub(super) mixed: Mixed,
    pub(super) attachments: Places,
    pub(super) nat: Places,
    pub(super) maglev: Places,
    pub(super) backends: BackendSlots,
    pub(super) no_room: BTreeMap<Owner, Vec<NoRoom>>,
    /// What the entries will be of that are being carried out.
    pub(super) pending: Vec<(Owner, Vec<Key>)>,
}

impl Default for Compiled {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            shares: HashMap::new(),
            mixed: Mixed::default(),
            attachments: Places::new(MOST_ATTACHMENTS),
            nat: Places::new(MOST_NAT_ADDRESSES),
            maglev: Places::new(MAGLEV_PLACES),
            backends: BackendSlots::default(),
            no_room: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

impl Compiled {
    /// What found no place.
    pub fn no_room(&self) -> impl Iterator<Item = &NoRoom> {
        self.no_room.values().flatten()
    }

    /// Everything anew, whatever the maps hold.
    #[must_use]
    pub fn rebuild(&mut self, state: &State, observed: &Observed, current: &Contents) -> Parts {
        *self = Self {
            backends: BackendSlots::new(current),
            ..Self::default()
        };
        // What is in use keeps its places until it is no longer in use: a packet on its way may have
        // read the old region's place already.
        for port in current.ports.values() {
            let nat_size = port.nat_size_v4 + port.nat_size_v6;
            self.nat.take(port.nat_offset, nat_size);
            self.maglev.take(port.maglev_offset, port.maglev_size);
        }
        for attachment in current.attachments.values() {
            self.attachments.take(attachment.slot, 1);
        }
        let scope = Scope {
            networks: state.networks.keys().cloned().collect(),
            services: state.services.keys().cloned().collect(),
            endpoints: state.endpoints.keys().cloned().collect(),
        };
        let mut new = self.compile(state, observed, current, scope);
        let kept: HashSet<u32> = new.backends.keys().copied().collect();
        let left: Vec<_> = self.backends.owners().copied().collect();
        for owner in left {
            let slot = self.backends.of(owner).map(|(slot, _)| slot);
            if slot.is_some_and(|slot| !kept.contains(&slot)) {
                self.backends.release(&owner);
            }
        }
        new.backends.extend(self.backends.free());
        Parts {
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
        current: &Contents,
        scope: Scope,
    ) -> Parts {
        let mut new = self.compile(state, observed, current, scope);
        let mut old = Contents::default();
        for (owner, keys) in &self.pending {
            for key in self.keys.get(owner).into_iter().flatten() {
                extract(current, *key, &mut old);
                if let Key::Backend(slot) = key
                    && !keys.contains(key)
                    && let Some(there) = current.backends.get(slot)
                {
                    let owner = (there.resource, IpAddr::from(there.address));
                    let left = self.backends.release(&owner);
                    new.backends.extend(left);
                }
            }
            for key in keys {
                if let Key::Backend(_) = key {
                    extract(current, *key, &mut old);
                }
            }
        }
        Parts { old, new }
    }

    /// What was compiled last is carried out: what it gave up is free.
    pub fn settle(&mut self) {
        for (owner, keys) in std::mem::take(&mut self.pending) {
            let old = if keys.is_empty() {
                self.keys.remove(&owner)
            } else {
                self.keys.insert(owner, keys.clone())
            };
            for key in old.into_iter().flatten().filter(|key| !keys.contains(key)) {
                self.give_back(key);
            }
        }
        self.backends.settle();
    }

    /// After a rebuild: of all that was taken at its start, what nothing has now.
    pub fn settle_rebuilt(&mut self) {
        self.settle();
        self.nat = Places::new(MOST_NAT_ADDRESSES);
        self.maglev = Places::new(MAGLEV_PLACES);
        self.attachments = Places::new(MOST_ATTACHMENTS);
        for key in self.keys.values().flatten() {
            match *key {
                Key::Egress(slot) => self.attachments.take(slot, 1),
                Key::Maglev(start, size) => self.maglev.take(start, size),
                Key::Nat(start, size) => self.nat.take(start, size),
                _ => true,
            };
        }
    }

    fn give_back(&mut self, key: Key) {
        match key {
            Key::Egress(slot) => self.attachments.give_back(slot, 1),
            Key::Maglev(start, size) => self.maglev.give_back(start, size),
            Key::Nat(start, size) => self.nat.give_back(start, size),
            _ => {}
        }
    }

    fn compile(
        &mut self,
        state: &State,
        observed: &Observed,
        current: &Contents,
        mut scope: Scope,
    ) -> Contents {
        for reference in &scope.endpoints {
            let record = state.endpoints.get(reference);
            let new = record.map(|record| Share::of(state, reference, record));
            let new = new.unwrap_or_default();
            let old = self.shares.remove(reference).unwrap_or_default();
            let (networks, services) = self.mixed.exchange(&old, &new);
            scope.networks.extend(networks);
            scope.services.extend(services);
            if record.is_some() {
                self.shares.insert(reference.clone(), new);
            }
        }
        // There may be room by now for what found none.
        for owner in self.no_room.keys().cloned() {
            match owner {
                Owner::Network(reference) => scope.networks.insert(reference),
                Owner::Service(reference) => scope.services.insert(reference),
                Owner::Endpoint(reference) => scope.endpoints.insert(reference),
            };
        }
        self.pending.clear();
        let mut compiler = Compiler::new(state, observed, current, self);
        for reference in scope.networks {
            if let Some(record) = state.networks.get(&reference) {
                compiler.network(&reference, record);
            }
            compiler.done(Owner::Network(reference));
        }
        for reference in scope.services {
            if let Some(record) = state.services.get(&reference) {
                compiler.service(&reference, record);
            }
            compiler.done(Owner::Service(reference));
        }
        for reference in scope.endpoints {
            if let Some(record) = state.endpoints.get(&reference) {
                compiler.endpoint(&reference, record);
            }
            compiler.done(Owner::Endpoint(reference));
        }
        compiler.into_contents()
    }
}

/// Copies what is under the key.
fn extract(from: &Contents, key: Key, to: &mut Contents) {
    fn copy<K: Ord + Copy, V: Copy>(from: &BTreeMap<K, V>, key: K, to: &mut BTreeMap<K, V>) {
        if let Some(value) = from.get(&key) {
            to.insert(key, *value);
        }
    }
    match key {
        Key::Attachment(ifindex) => copy(&from.attachments, ifindex, &mut to.attachments),
        Key::Egress(slot) => {
            copy(&from.egress, slot, &mut to.egress);
            copy(&from.devices, slot, &mut to.devices);
        }
        Key::Address(address) => copy(&from.addresses, address, &mut to.addresses),
        Key::Port(port) => copy(&from.ports, port, &mut to.ports),
        Key::Maglev(start, size) => {
            let places = from.maglev.range(start..start.saturating_add(size));
            to.maglev
                .extend(places.map(|(place, slot)| (*place, *slot)));
        }
        Key::Backend(slot) => copy(&from.backends, slot, &mut to.backends),
        Key::Nat(start, size) => {
            let places = from.nat_addresses.range(start..start.saturating_add(size));
            to.nat_addresses
                .extend(places.map(|(place, nat)| (*place, *nat)));
        }
        Key::Link(slot) => {
            copy(&from.links, slot, &mut to.links);
            copy(&from.limits, slot, &mut to.limits);
        }
    }
}
