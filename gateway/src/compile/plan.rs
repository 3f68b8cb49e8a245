//! From the contents that the maps have to those that they should have: the writes, in an order in
//! which no packet is ever let through that neither allows.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::maps::{
    AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress, Port,
    PortKey,
};

use crate::compile::map_snapshot::MapSnapshot;

/// One write into a map. Nothing in an option: the entry is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapWrite {
    /// By interface index.
    Attachment(u32, Option<Attachment>),
    /// By attachment slot; a free one is all zeros.
    Egress(u32, Egress),
    /// The interface index of an attachment slot.
    TxPort(u32, Option<u32>),
    /// An address that is answered for.
    Address(AddressKey, Option<LocalAddress>),
    /// A port that a resource offers.
    Port(PortKey, Option<Port>),
    /// The backend slot at a place.
    Maglev(u32, u32),
    /// By backend slot.
    Backend(u32, Backend),
    /// By place; a free one is all zeros.
    NatAddress(u32, NatAddress),
    /// By link slot; a free one is all zeros.
    Connection(u32, Connection),
    /// What a connection may use, by link slot; all zeros are no limits.
    Limits(u32, Limits),
    /// What was counted for the link slot begins at zero: it has a new owner.
    ResetCounters(u32),
}

/// Writes in three steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What takes away. When these are done, and every packet that was being processed is through,
    /// nothing flows that should not.
    pub revoke: Vec<MapWrite>,
    /// What adds and changes; each only refers to what is there already.
    pub grant: Vec<MapWrite>,
    /// What nothing refers to any more.
    pub release: Vec<MapWrite>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoke.is_empty() && self.grant.is_empty() && self.release.is_empty()
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoke.len() + self.grant.len() + self.release.len()
    }

    /// Returns whether a backend leaves its slot in `current`, which ends its flows.
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

/// What is in `old` and not in `new`.
fn removed<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    old.iter().filter(|(key, _)| !new.contains_key(key))
}

/// What is in `new` and not the same in `old`, with the old value where there was one.
fn changed<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, &'a V)> {
    new.iter().filter_map(|(key, value)| {
        let before = old.get(key);
        (before != Some(value)).then_some((key, before, value))
    })
}

/// The writes that make `new` of `old`.
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
        // One that leaves its slot does so when no table names it any more.
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

/// A connection's new generation ends the flows of the one before.
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

/// Whether the change of a link ends flows: not where only its limits begin or end.
const fn ends_flows(before: &Connection, now: &Connection) -> bool {
    before.generation != 0 && (before.generation != now.generation || before.id != now.id)
}

/// An address that loses its approval, or what it led to, loses it first.
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

/// A way out that leads elsewhere from now on is closed before its device changes: no packet is to
/// meet the old network's permission and the new network's device.
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

/// What the contents are after the writes: the model of the maps that tests compare with, and what
/// the agent takes for the maps' contents after it has written them.
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

#[cfg(test)]
mod tests;
