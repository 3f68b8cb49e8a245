//! Reading of the configuration that the maps hold.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result};
use aya::maps::{IterableMap as _, MapError};
use bytemuck::Pod;
use gateway_common::maps::{
    ATTACHMENT_BUCKETS, AddressKey, LocalAddress, MAX_ATTACHMENTS, MAX_BACKENDS, MAX_CONNECTIONS,
    Port, PortKey, name,
};

use crate::{
    bpf::{
        maps::handles::{ArrayOf, Maps},
        syscalls,
    },
    compile::map_snapshot::MapSnapshot,
};

impl Maps {
    /// Reads the configuration that the maps hold.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read a map.
    pub fn read_snapshot(&self) -> Result<MapSnapshot> {
        let overflow = self.attachment_overflow.iter();
        let overflow = overflow.map(|entry| entry.map(|(_, value)| value.0));
        let overflow = overflow.collect::<Result<Vec<_>, _>>()?;
        let mut snapshot = MapSnapshot {
            attachments: read_array(&self.attachments, ATTACHMENT_BUCKETS)?
                .into_values()
                .chain(overflow)
                .map(|attachment| (attachment.ifindex, attachment))
                .collect(),
            egress: read_array(&self.egress, MAX_ATTACHMENTS)?,
            backends: read_array(&self.backends, MAX_BACKENDS)?,
            connections: read_array(&self.connections, MAX_CONNECTIONS)?,
            limits: read_array(&self.limits, MAX_CONNECTIONS)?,
            ..MapSnapshot::default()
        };
        for slot in 0..MAX_ATTACHMENTS {
            match self.tx_ports.get(slot, 0) {
                Ok(device) => {
                    snapshot.tx_ports.insert(slot, device.if_index);
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).with_context(|| read_error(name::TX_PORTS)),
            }
        }
        syscalls::for_each(
            self.addresses.map().fd().as_fd(),
            |key: &AddressKey, value: &LocalAddress| {
                snapshot.addresses.insert(*key, *value);
            },
        )
        .with_context(|| read_error(name::ADDRESSES))?;
        syscalls::for_each(
            self.ports.map().fd().as_fd(),
            |key: &PortKey, value: &Port| {
                snapshot.ports.insert(*key, *value);
            },
        )
        .with_context(|| read_error(name::PORTS))?;
        // Only the ranges that a port names are in use.
        let ports: Vec<Port> = snapshot.ports.values().copied().collect();
        for port in ports {
            let end = port.maglev_offset.saturating_add(port.maglev_size);
            for index in port.maglev_offset..end {
                if let Entry::Vacant(entry) = snapshot.maglev.entry(index) {
                    entry.insert(self.maglev.get(&index, 0)?.0);
                }
            }
            let end = port
                .nat_offset
                .saturating_add(port.nat_size_v4 + port.nat_size_v6);
            for index in port.nat_offset..end {
                if let Entry::Vacant(entry) = snapshot.nat_addresses.entry(index) {
                    entry.insert(self.nat_addresses.get(&index, 0)?.0);
                }
            }
        }
        Ok(snapshot)
    }
}

/// Returns the entries of an array that are not all zeros.
fn read_array<T: Pod + Default + PartialEq>(
    array: &ArrayOf<T>,
    len: u32,
) -> Result<BTreeMap<u32, T>, MapError> {
    let mut values = BTreeMap::new();
    for index in 0..len {
        let value = array.get(&index, 0)?.0;
        if value != T::default() {
            values.insert(index, value);
        }
    }
    Ok(values)
}

fn read_error(map: &str) -> String {
    format!("could not read map {map}")
}
