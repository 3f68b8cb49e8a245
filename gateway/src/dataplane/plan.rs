//! From the contents that the maps have to those that they should have: the writes, in an order in
//! which no packet is ever let through that neither allows.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::maps::{
    Address, AddressKey, Attachment, Backend, Egress, Limits, Link, NatAddress, Port, PortKey,
};

use crate::dataplane::contents::Contents;

/// One write into a map. Nothing in an option: the entry is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// By interface index.
    Attachment(u32, Option<Attachment>),
    /// By attachment slot; a free one is all zeros.
    Egress(u32, Egress),
    /// The interface index of an attachment slot.
    Device(u32, Option<u32>),
    /// An address that is answered for.
    Address(AddressKey, Option<Address>),
    /// A port that a resource offers.
    Port(PortKey, Option<Port>),
    /// The backend slot at a place.
    Maglev(u32, u32),
    /// By backend slot.
    Backend(u32, Backend),
    /// By place; a free one is all zeros.
    NatAddress(u32, NatAddress),
    /// By link slot; a free one is all zeros.
    Link(u32, Link),
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
    pub revoke: Vec<Write>,
    /// What adds and changes; each only refers to what is there already.
    pub grant: Vec<Write>,
    /// What nothing refers to any more.
    pub release: Vec<Write>,
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
    pub fn ends_backends(&self, current: &Contents) -> bool {
        self.grant
            .iter()
            .chain(&self.release)
            .any(|write| match write {
                Write::Backend(slot, new) => current
                    .backends
                    .get(slot)
                    .is_some_and(|old| old.resource != 0 && old.generation != new.generation),
                _ => false,
            })
    }
}

/// What is in `old` and not in `new`.
fn gone<'a, K: Ord, V>(
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
pub fn plan(old: &Contents, new: &Contents) -> Plan {
    let mut plan = Plan::default();
    for (slot, _, limits) in changed(&old.limits, &new.limits) {
        plan.grant.push(Write::Limits(*slot, *limits));
    }
    for (slot, _) in gone(&old.limits, &new.limits) {
        plan.release.push(Write::Limits(*slot, Limits::default()));
    }
    links(old, new, &mut plan);
    addresses(old, new, &mut plan);
    for (key, _) in gone(&old.ports, &new.ports) {
        plan.revoke.push(Write::Port(*key, None));
    }
    egress_cut(old, new, &mut plan);

    for (slot, before, backend) in changed(&old.backends, &new.backends) {
        // One that leaves its slot does so when no table names it any more.
        let leaves = before.is_some_and(|before| before.resource != 0) && backend.resource == 0;
        let step = if leaves {
            &mut plan.release
        } else {
            &mut plan.grant
        };
        step.push(Write::Backend(*slot, *backend));
    }
    for (place, _, slot) in changed(&old.maglev, &new.maglev) {
        plan.grant.push(Write::Maglev(*place, *slot));
    }
    for (place, _, address) in changed(&old.nat_addresses, &new.nat_addresses) {
        plan.grant.push(Write::NatAddress(*place, *address));
    }
    for (place, _) in gone(&old.nat_addresses, &new.nat_addresses) {
        plan.release
            .push(Write::NatAddress(*place, NatAddress::default()));
    }
    for (key, _, port) in changed(&old.ports, &new.ports) {
        plan.grant.push(Write::Port(*key, Some(*port)));
    }
    for (slot, _, ifindex) in changed(&old.devices, &new.devices) {
        plan.grant.push(Write::Device(*slot, Some(*ifindex)));
    }
    let cut: BTreeSet<u32> = plan
        .revoke
        .iter()
        .filter_map(|write| match write {
            Write::Egress(slot, _) => Some(*slot),
            _ => None,
        })
        .collect();
    for (slot, egress) in &new.egress {
        if cut.contains(slot) || old.egress.get(slot) != Some(egress) {
            plan.grant.push(Write::Egress(*slot, *egress));
        }
    }
    for (ifindex, _, attachment) in changed(&old.attachments, &new.attachments) {
        plan.grant
            .push(Write::Attachment(*ifindex, Some(*attachment)));
    }
    for (key, _, address) in changed(&old.addresses, &new.addresses) {
        plan.grant.push(Write::Address(*key, Some(*address)));
    }
    plan
}

/// A connection's new generation ends the flows of the one before.
fn links(old: &Contents, new: &Contents, plan: &mut Plan) {
    for (slot, _) in gone(&old.links, &new.links) {
        plan.revoke.push(Write::Link(*slot, Link::default()));
    }
    for (slot, before, link) in changed(&old.links, &new.links) {
        let step = match before {
            Some(before) if ends_flows(before, link) => &mut plan.revoke,
            _ => &mut plan.grant,
        };
        step.push(Write::Link(*slot, *link));
        if before.is_none_or(|before| before.id != link.id) {
            step.push(Write::ResetCounters(*slot));
        }
    }
}

/// Whether the change of a link ends flows: not where only its limits begin or end.
const fn ends_flows(before: &Link, now: &Link) -> bool {
    before.generation != 0 && (before.generation != now.generation || before.id != now.id)
}

/// An address that loses its approval, or what it led to, loses it first.
fn addresses(old: &Contents, new: &Contents, plan: &mut Plan) {
    for (key, _) in gone(&old.addresses, &new.addresses) {
        plan.revoke.push(Write::Address(*key, None));
    }
    for (key, before, address) in changed(&old.addresses, &new.addresses) {
        if before.is_some_and(Address::approved) {
            let closed = Address {
                flags: address.flags & !Address::APPROVED,
                ..*address
            };
            plan.revoke.push(Write::Address(*key, Some(closed)));
        }
    }
}

/// A way out that leads elsewhere from now on is closed before its device changes: no packet is to
/// meet the old network's permission and the new network's device.
fn egress_cut(old: &Contents, new: &Contents, plan: &mut Plan) {
    for (slot, before) in &old.egress {
        let same_network = new
            .egress
            .get(slot)
            .is_some_and(|now| now.network == before.network);
        let same_device = new.devices.get(slot) == old.devices.get(slot);
        if !(same_network && same_device) {
            plan.revoke.push(Write::Egress(*slot, Egress::default()));
        }
    }
    for (slot, _) in gone(&old.devices, &new.devices) {
        plan.revoke.push(Write::Device(*slot, None));
    }
    for (ifindex, _) in gone(&old.attachments, &new.attachments) {
        plan.revoke.push(Write::Attachment(*ifindex, None));
    }
}

/// What the contents are after the writes: the model of the maps that tests compare with, and what
/// the agent takes for the maps' contents after it has written them.
pub fn apply(contents: &mut Contents, write: Write) {
    fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
    fn place<V: PartialEq + Default>(map: &mut BTreeMap<u32, V>, key: u32, value: V) {
        set(map, key, (value != V::default()).then_some(value));
    }
    match write {
        Write::Attachment(key, value) => set(&mut contents.attachments, key, value),
        Write::Egress(key, value) => place(&mut contents.egress, key, value),
        Write::Device(key, value) => set(&mut contents.devices, key, value),
        Write::Address(key, value) => set(&mut contents.addresses, key, value),
        Write::Port(key, value) => set(&mut contents.ports, key, value),
        Write::Maglev(key, value) => set(&mut contents.maglev, key, Some(value)),
        Write::Backend(key, value) => place(&mut contents.backends, key, value),
        Write::NatAddress(key, value) => place(&mut contents.nat_addresses, key, value),
        Write::Link(key, value) => place(&mut contents.links, key, value),
        Write::Limits(key, value) => place(&mut contents.limits, key, value),
        Write::ResetCounters(_) => {}
    }
}

#[cfg(test)]
mod tests;
