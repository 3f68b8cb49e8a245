//! What a flow costs in the kernel's memory.

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

/// So many entries are made.
const ENTRIES: u32 = 500_000;

/// Bytes of both entries of a flow.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Of IPv4.
    pub(crate) ipv4: f64,
    /// Of IPv6.
    pub(crate) ipv6: f64,
}

/// Measures it, by what the kernel has less afterwards.
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

/// The same, once what was freed before has been given back, which takes a while.
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

/// Bytes that the kernel has in slabs for good.
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
