//! Plan of the writes that lead from the present map contents to the wanted ones. Pure.
//!
//! The writes are ordered so that at no moment a packet is forwarded that neither the present nor the wanted contents
//! allow.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::maps::{
    AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress, Port,
    PortKey,
};

use crate::compile::map_snapshot::MapSnapshot;

/// One write to a map. `None` deletes the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapWrite {
    /// Attachment of an interface index.
    Attachment(u32, Option<Attachment>),
    /// Egress interface of an attachment slot. A free slot is all zeros.
    Egress(u32, Egress),
    /// Interface index of an attachment slot, in the device map.
    TxPort(u32, Option<u32>),
    /// Local address.
    Address(AddressKey, Option<LocalAddress>),
    /// Port that a resource offers.
    Port(PortKey, Option<Port>),
    /// Backend slot at an index of the Maglev array.
    Maglev(u32, u32),
    /// Backend of a backend slot.
    Backend(u32, Backend),
    /// SNAT address at an index of the array. A free entry is all zeros.
    NatAddress(u32, NatAddress),
    /// Connection of a connection slot. A free slot is all zeros.
    Connection(u32, Connection),
    /// Rate limits of a connection slot. All zeros mean no limits.
    Limits(u32, Limits),
    /// Reset of the counters of a connection slot, which has a new connection.
    ResetCounters(u32),
}

/// Writes in three steps: revoke, grant, release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Writes that take permissions away. After them and a grace period no packet is forwarded that should not be.
    pub revoke: Vec<MapWrite>,
    /// Writes that add and change entries. Each refers only to entries that exist already.
    pub grant: Vec<MapWrite>,
    /// Writes that clear entries to which no other entry refers any more.
    pub release: Vec<MapWrite>,
}

/// Changes of the local addresses, and of the interfaces that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChanges {
    /// Numbers of the networks whose local addresses changed.
    pub networks: BTreeSet<u32>,
    /// True if an interface changed.
    pub has_interfaces: bool,
}

impl AddressChanges {
    /// Returns true if nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.has_interfaces
    }
}

impl Plan {
    /// Returns true if the plan has no writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoke.is_empty() && self.grant.is_empty() && self.release.is_empty()
    }

    /// Returns the number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoke.len() + self.grant.len() + self.release.len()
    }

    /// Adds the changes of local addresses, and of the interfaces that have them.
    pub fn add_address_changes(&self, changes: &mut AddressChanges) {
        for write in self.revoke.iter().chain(&self.grant) {
            match write {
                MapWrite::Address(key, _) => {
                    changes.networks.insert(key.network);
                }
                MapWrite::Attachment(..) | MapWrite::Egress(..) => changes.has_interfaces = true,
                _ => {}
            }
        }
    }

    /// Returns true if a backend loses the slot that it has in `current`, which ends its flows.
    #[must_use]
    pub fn removes_backends(&self, current: &MapSnapshot) -> bool {
        self.grant
            .iter()
            .chain(&self.release)
            .any(|write| match write {
                MapWrite::Backend(slot, new) => current
                    .backends
                    .get(slot)
                    .is_some_and(|old| old.resource != 0 && old.generation != new.generation),
                _ => false,
            })
    }
}

/// Returns the entries of `old` whose keys are not in `new`.
fn removed<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    old.iter().filter(|(key, _)| !new.contains_key(key))
}

/// Returns the entries of `new` that differ from `old`, each with the old value if there is one.
fn changed<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, &'a V)> {
    new.iter().filter_map(|(key, value)| {
        let before = old.get(key);
        (before != Some(value)).then_some((key, before, value))
    })
}

/// Plans the writes that turn `old` into `new`.
#[must_use]
pub fn plan(old: &MapSnapshot, new: &MapSnapshot) -> Plan {
    let mut plan = Plan::default();
    for (slot, _, limits) in changed(&old.limits, &new.limits) {
        plan.grant.push(MapWrite::Limits(*slot, *limits));
    }
    for (slot, _) in removed(&old.limits, &new.limits) {
        plan.release
            .push(MapWrite::Limits(*slot, Limits::default()));
    }
    plan_connections(old, new, &mut plan);
    plan_addresses(old, new, &mut plan);
    for (key, _) in removed(&old.ports, &new.ports) {
        plan.revoke.push(MapWrite::Port(*key, None));
    }
    revoke_egress(old, new, &mut plan);

    for (slot, before, backend) in changed(&old.backends, &new.backends) {
        // A slot is freed in the last step, after the Maglev tables that name it have changed.
        let leaves = before.is_some_and(|before| before.resource != 0) && backend.resource == 0;
        let step = if leaves {
            &mut plan.release
        } else {
            &mut plan.grant
        };
        step.push(MapWrite::Backend(*slot, *backend));
    }
    for (index, _, slot) in changed(&old.maglev, &new.maglev) {
        plan.grant.push(MapWrite::Maglev(*index, *slot));
    }
    for (index, _, address) in changed(&old.nat_addresses, &new.nat_addresses) {
        plan.grant.push(MapWrite::NatAddress(*index, *address));
    }
    for (index, _) in removed(&old.nat_addresses, &new.nat_addresses) {
        plan.release
            .push(MapWrite::NatAddress(*index, NatAddress::default()));
    }
    for (key, _, port) in changed(&old.ports, &new.ports) {
        plan.grant.push(MapWrite::Port(*key, Some(*port)));
    }
    for (slot, _, ifindex) in changed(&old.tx_ports, &new.tx_ports) {
        plan.grant.push(MapWrite::TxPort(*slot, Some(*ifindex)));
    }
    let revoked: BTreeSet<u32> = plan
        .revoke
        .iter()
        .filter_map(|write| match write {
            MapWrite::Egress(slot, _) => Some(*slot),
            _ => None,
        })
        .collect();
    for (slot, egress) in &new.egress {
        if revoked.contains(slot) || old.egress.get(slot) != Some(egress) {
            plan.grant.push(MapWrite::Egress(*slot, *egress));
        }
    }
    for (ifindex, _, attachment) in changed(&old.attachments, &new.attachments) {
        plan.grant
            .push(MapWrite::Attachment(*ifindex, Some(*attachment)));
    }
    for (key, _, address) in changed(&old.addresses, &new.addresses) {
        plan.grant.push(MapWrite::Address(*key, Some(*address)));
    }
    plan
}

/// Plans connections. A new generation comes first, because it ends the flows of the generation before.
fn plan_connections(old: &MapSnapshot, new: &MapSnapshot, plan: &mut Plan) {
    for (slot, _) in removed(&old.connections, &new.connections) {
        plan.revoke
            .push(MapWrite::Connection(*slot, Connection::default()));
    }
    for (slot, before, link) in changed(&old.connections, &new.connections) {
        let step = match before {
            Some(before) if ends_flows(before, link) => &mut plan.revoke,
            _ => &mut plan.grant,
        };
        step.push(MapWrite::Connection(*slot, *link));
        if before.is_none_or(|before| before.id != link.id) {
            step.push(MapWrite::ResetCounters(*slot));
        }
    }
}

/// Returns true if the change of a connection ends its flows. A change of its limits alone does not.
const fn ends_flows(before: &Connection, now: &Connection) -> bool {
    before.generation != 0 && (before.generation != now.generation || before.id != now.id)
}

/// Plans the revocation of addresses. An approved address that changes loses its approval before it is written again.
fn plan_addresses(old: &MapSnapshot, new: &MapSnapshot, plan: &mut Plan) {
    for (key, _) in removed(&old.addresses, &new.addresses) {
        plan.revoke.push(MapWrite::Address(*key, None));
    }
    for (key, before, address) in changed(&old.addresses, &new.addresses) {
        if before.is_some_and(LocalAddress::is_approved) {
            let closed = LocalAddress {
                flags: address.flags & !LocalAddress::APPROVED,
                ..*address
            };
            plan.revoke.push(MapWrite::Address(*key, Some(closed)));
        }
    }
}

/// Plans the revocation of egress interfaces.
///
/// An egress slot whose network or device changes is closed before its device changes. Otherwise a packet could be
/// allowed by the old network's entry and sent out of the new network's device.
fn revoke_egress(old: &MapSnapshot, new: &MapSnapshot, plan: &mut Plan) {
    for (slot, before) in &old.egress {
        let same_network = new
            .egress
            .get(slot)
            .is_some_and(|now| now.network == before.network);
        let same_device = new.tx_ports.get(slot) == old.tx_ports.get(slot);
        if !(same_network && same_device) {
            plan.revoke.push(MapWrite::Egress(*slot, Egress::default()));
        }
    }
    for (slot, _) in removed(&old.tx_ports, &new.tx_ports) {
        plan.revoke.push(MapWrite::TxPort(*slot, None));
    }
    for (ifindex, _) in removed(&old.attachments, &new.attachments) {
        plan.revoke.push(MapWrite::Attachment(*ifindex, None));
    }
}

/// Applies a write to a snapshot.
///
/// The agent keeps its copy of the maps' contents up to date with it, and tests use it as a model of the maps.
pub fn apply_to_snapshot(snapshot: &mut MapSnapshot, write: MapWrite) {
    fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
    fn set_slot<V: PartialEq + Default>(map: &mut BTreeMap<u32, V>, key: u32, value: V) {
        set(map, key, (value != V::default()).then_some(value));
    }
    match write {
        MapWrite::Attachment(key, value) => set(&mut snapshot.attachments, key, value),
        MapWrite::Egress(key, value) => set_slot(&mut snapshot.egress, key, value),
        MapWrite::TxPort(key, value) => set(&mut snapshot.tx_ports, key, value),
        MapWrite::Address(key, value) => set(&mut snapshot.addresses, key, value),
        MapWrite::Port(key, value) => set(&mut snapshot.ports, key, value),
        MapWrite::Maglev(key, value) => set(&mut snapshot.maglev, key, Some(value)),
        MapWrite::Backend(key, value) => set_slot(&mut snapshot.backends, key, value),
        MapWrite::NatAddress(key, value) => set_slot(&mut snapshot.nat_addresses, key, value),
        MapWrite::Connection(key, value) => set_slot(&mut snapshot.connections, key, value),
        MapWrite::Limits(key, value) => set_slot(&mut snapshot.limits, key, value),
        MapWrite::ResetCounters(_) => {}
    }
}
