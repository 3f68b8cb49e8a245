//! The kernel's hash maps as tables of flows: the yardstick of the flow table.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use bytemuck::Pod;
use gateway::bpf::{flow_tables::HasFlowTable, syscalls};
use gateway_common::{
    V4, V6,
    flow::{Flow, FlowKey},
};
use tests::{bpf::syscalls::create_hash_map, datapath::differential::DifferentialHarness};

use crate::flows::MAX_FLOWS;

/// Maximum number of entries, and number of buckets: twice as many as the entries of the flows.
const ENTRIES: u32 = MAX_FLOWS * 4;

/// Bytes of a flow entry in a hash map, without its key.
const VALUE_V4: usize = 56;
const VALUE_V6: usize = 80;

/// Hash maps with the entries of both flow tables.
pub(crate) struct KernelHash {
    /// Entries of IPv4 flows.
    pub(crate) v4: OwnedFd,
    /// Entries of IPv6 flows.
    pub(crate) v6: OwnedFd,
}

impl KernelHash {
    /// Creates hash maps with the present entries of a harness's flow tables.
    ///
    /// # Errors
    /// Fails if the kernel refuses them.
    pub(crate) fn copy_of(harness: &DifferentialHarness) -> io::Result<Self> {
        Ok(Self {
            v4: copy_table::<V4, [u64; VALUE_V4 / 8]>(harness)?,
            v6: copy_table::<V6, [u64; VALUE_V6 / 8]>(harness)?,
        })
    }
}

/// Copies a flow table to a hash map with values of this type.
fn copy_table<F: HasFlowTable, V: Pod>(harness: &DifferentialHarness) -> io::Result<OwnedFd> {
    const { assert!(size_of::<Flow<F>>() <= size_of::<V>()) };
    let size = |bytes: usize| u32::try_from(bytes).expect("a small entry");
    let (key_size, value_size) = (size(size_of::<FlowKey<F>>()), size(size_of::<V>()));
    let map = create_hash_map(key_size, value_size, ENTRIES)?;
    for found in F::flow_table(harness.flow_tables()).entries(0) {
        let mut value = V::zeroed();
        bytemuck::bytes_of_mut(&mut value)[..size_of::<Flow<F>>()]
            .copy_from_slice(bytemuck::bytes_of(found.entry()));
        syscalls::update(map.as_fd(), found.key(), &value)?;
    }
    Ok(map)
}
