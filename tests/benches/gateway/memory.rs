//! Kernel memory of a flow.

use std::{fs, io, os::fd::AsFd as _, thread, time::Duration};

use bytemuck::Pod;
use gateway::bpf::syscalls;
use gateway_common::{
    V4, V6,
    flow::{Flow, FlowKey},
    maps::name,
};
use serde::Serialize;
use tests::datapath::differential::{DifferentialHarness, with_harness};

/// Number of inserted entries.
const ENTRIES: u32 = 500_000;

/// Bytes of both entries of a flow, by address family.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Bytes of an IPv4 flow.
    pub(crate) ipv4: f64,
    /// Bytes of an IPv6 flow.
    pub(crate) ipv6: f64,
}

/// Measures the growth of unreclaimable slab memory.
pub(crate) fn measure() -> Memory {
    with_harness(|harness| Memory {
        ipv4: measure_family::<FlowKey<V4>, Flow<V4>>(harness, name::FLOWS_V4).expect("flows"),
        ipv6: measure_family::<FlowKey<V6>, Flow<V6>>(harness, name::FLOWS_V6).expect("flows"),
    })
}

fn measure_family<K: Pod, V: Pod>(harness: &DifferentialHarness, table: &str) -> io::Result<f64> {
    let table = harness.map(table);
    let mut key = vec![0u8; size_of::<K>()];
    let value = V::zeroed();
    let before = slab_bytes_when_stable()?;
    for number in 0..ENTRIES {
        key[..4].copy_from_slice(&number.to_ne_bytes());
        syscalls::update(table.as_fd(), bytemuck::from_bytes::<K>(&key), &value)?;
    }
    let used = slab_bytes()? - before;
    for number in 0..ENTRIES {
        key[..4].copy_from_slice(&number.to_ne_bytes());
        syscalls::delete(table.as_fd(), bytemuck::from_bytes::<K>(&key))?;
    }
    Ok(2.0 * used / f64::from(ENTRIES))
}

/// Returns [`slab_bytes`] after the kernel has returned memory freed before, which is delayed.
fn slab_bytes_when_stable() -> io::Result<f64> {
    let mut last = slab_bytes()?;
    loop {
        thread::sleep(Duration::from_millis(700));
        let now = slab_bytes()?;
        if (now - last).abs() < 1e6 {
            return Ok(now);
        }
        last = now;
    }
}

/// Returns the bytes of unreclaimable slab memory.
fn slab_bytes() -> io::Result<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok());
    Ok(kilobytes.unwrap_or(f64::NAN) * 1_024.0)
}
