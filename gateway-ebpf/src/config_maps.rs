//! Access to the configuration maps.

use core::ptr::NonNull;

use gateway_common::maps::{
    AddressKey, Attachment, Backend, ConfigMaps, Connection, Egress, Limits, LocalAddress,
    MapValueRef, NatAddress, Port, PortKey, attachment_index,
};

use crate::{
    context::Xdp,
    maps::{
        ADDRESSES, ATTACH_OVERFLOW, ATTACHMENTS, BACKENDS, CONNECTIONS, EGRESS, FLOW_TABLE_SHARE,
        FLOW_TABLE_SIZE, HASH_SEED, LIMITS, MAGLEV, NAT_ADDRESSES, PORTS, REJECT_COST,
    },
};

/// Copies an attachment field by field, so that only the fields that are used are loaded. The other methods here do
/// the same.
#[inline(always)]
fn copy_attachment(found: &Attachment) -> Attachment {
    Attachment {
        ifindex: found.ifindex,
        network: found.network,
        slot: found.slot,
        flags: found.flags,
        mac: found.mac,
    }
}

impl ConfigMaps for Xdp {
    #[inline(always)]
    fn attachment(&self) -> Option<Attachment> {
        let ifindex = self.ifindex();
        let direct = ATTACHMENTS.get(attachment_index(ifindex))?;
        if direct.ifindex == ifindex {
            return Some(copy_attachment(direct));
        }
        // SAFETY: the map has no preallocation, so an element stays valid until the program returns.
        unsafe { ATTACH_OVERFLOW.get(ifindex) }.map(copy_attachment)
    }

    #[inline(always)]
    fn egress(&self, slot: u32) -> Option<Egress> {
        let found = EGRESS.get(slot)?;
        Some(Egress {
            network: found.network,
            mtu: found.mtu,
            reserved: 0,
            mac: found.mac,
        })
    }

    #[inline(always)]
    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress> {
        // SAFETY: the map has no preallocation, so an element stays valid until the program returns.
        unsafe { ADDRESSES.get(key).copied() }
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>> {
        // SAFETY: the map has no preallocation, so an element stays valid until the program returns, and a new value
        // is a new element.
        unsafe {
            let port = PORTS.get(key)?;
            Some(MapValueRef::new(NonNull::from(port)))
        }
    }

    #[inline(always)]
    fn maglev(&self, index: u32) -> Option<u32> {
        MAGLEV.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<Backend> {
        let found = BACKENDS.get(slot)?;
        Some(Backend {
            resource: found.resource,
            generation: found.generation,
            address: found.address,
            egress_slot: found.egress_slot,
            reachable: found.reachable,
            network: found.network,
            flags: found.flags,
            mac: found.mac,
        })
    }

    #[inline(always)]
    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        NAT_ADDRESSES.get(index).copied()
    }

    #[inline(always)]
    fn connection(&self, slot: u32) -> Option<Connection> {
        let found = CONNECTIONS.get(slot)?;
        Some(Connection {
            id: found.id,
            generation: found.generation,
            network: found.network,
            has_limits: found.has_limits,
            timeouts: found.timeouts,
            reserved: 0,
        })
    }

    #[inline(always)]
    fn limits(&self, slot: u32) -> Option<Limits> {
        LIMITS.get(slot).copied()
    }

    #[inline(always)]
    fn reject_cost(&self) -> u64 {
        REJECT_COST.load()
    }

    #[inline(always)]
    fn hash_seed(&self) -> u64 {
        HASH_SEED.load()
    }

    #[inline(always)]
    fn flow_table_size(&self) -> u64 {
        FLOW_TABLE_SIZE.load()
    }

    #[inline(always)]
    fn flow_table_share(&self) -> u64 {
        FLOW_TABLE_SHARE.load()
    }
}
