//! The size of the flow tables: its limits, and its default by the machine's memory.

use std::mem::MaybeUninit;

use anyhow::{Result, bail};
use gateway_common::{V4, V6, flow::Bucket};

/// Smallest size of a flow table, in flows.
const MIN_SIZE: u32 = 1_024;
/// Largest size of a flow table, in flows.
const MAX_SIZE: u32 = 1 << 24;
/// Smallest and largest default size.
const DEFAULT_SIZES: std::ops::RangeInclusive<u64> = 16_384..=1 << 20;
/// Share of the machine's memory that both tables take by default: one 64th.
const MEMORY_SHARE: u64 = 64;
/// Bytes of memory for each flow that the tables are made for: a bucket of each family.
const BYTES_PER_FLOW: u64 = (size_of::<Bucket<V4>>() + size_of::<Bucket<V6>>()) as u64;

/// Returns the default size on a machine with this much memory, in bytes.
pub(super) fn default_size(memory: u64) -> u32 {
    let flows = memory / MEMORY_SHARE / BYTES_PER_FLOW;
    // A power of two looks chosen, and does not change with a few megabytes.
    let rounded = (flows + 1).next_power_of_two() / 2;
    let size = rounded.clamp(*DEFAULT_SIZES.start(), *DEFAULT_SIZES.end());
    u32::try_from(size).unwrap_or(MAX_SIZE)
}

/// Checks a size.
///
/// # Errors
/// If the size is out of range.
pub(super) fn check_size(size: u32) -> Result<()> {
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    bail!("flow_table_size is {size}: it must be {MIN_SIZE} to {MAX_SIZE} flows")
}

/// Returns the machine's memory, in bytes.
///
/// # Errors
/// If the kernel refuses to report it.
pub(super) fn total_memory() -> Result<u64> {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the kernel writes the struct, which outlives the call.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: all zeros is a value, and the kernel has filled it in.
    let info = unsafe { info.assume_init() };
    Ok(info.totalram.saturating_mul(info.mem_unit.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_size_follows_the_memory() {
        const GIB: u64 = 1 << 30;
        for (memory, expected) in [
            (GIB / 4, 16_384),
            (GIB, 16_384),
            (2 * GIB, 32_768),
            (8 * GIB, 131_072),
            (64 * GIB, 1 << 20),
            (1_024 * GIB, 1 << 20),
        ] {
            assert_eq!(default_size(memory), expected, "{memory}");
            assert!(check_size(default_size(memory)).is_ok());
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert!(check_size(1_023).is_err() && check_size(MAX_SIZE + 1).is_err());
        assert!(check_size(1_024).is_ok() && check_size(MAX_SIZE).is_ok());
    }
}
