//! Kernel memory of a flow.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use gateway::bpf::flow_tables::HasFlowTable;
use gateway_common::{V4, V6};
use serde::Serialize;
use tests::datapath::differential::{DifferentialHarness, with_sized_harness};

use crate::flows::MAX_FLOWS;

/// Bytes of a flow, by address family.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Number of flows that the flow tables are made for.
    pub(crate) table_size: u32,
    /// Number of places for their entries.
    pub(crate) places: u32,
    /// Bytes of an IPv4 flow, when the table has as many flows as it is made for.
    pub(crate) ipv4: f64,
    /// Bytes of an IPv6 flow.
    pub(crate) ipv6: f64,
}

/// Measures the memory of flow tables.
pub(crate) fn measure() -> Memory {
    with_sized_harness(0, MAX_FLOWS, |harness| Memory {
        table_size: harness.flow_tables().size(),
        places: V4::flow_table(harness.flow_tables()).place_count(),
        ipv4: bytes_of_flow::<V4>(harness).expect("the map's memory"),
        ipv6: bytes_of_flow::<V6>(harness).expect("the map's memory"),
    })
}

/// Returns the memory of a family's flow table, divided by the number of flows that it is made for.
fn bytes_of_flow<F: HasFlowTable>(harness: &DifferentialHarness) -> io::Result<f64> {
    let memory = map_memory(&harness.map(F::MAP))?;
    Ok(memory / f64::from(harness.flow_tables().size()))
}

/// Returns the bytes of a map, as the kernel accounts for them.
fn map_memory(map: &OwnedFd) -> io::Result<f64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .and_then(|bytes| bytes.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
