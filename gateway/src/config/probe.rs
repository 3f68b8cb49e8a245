//! Configuration of address probes.

use std::time::Duration;

/// Number and interval of address probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Number of probes; with 0, addresses are used without probing.
    pub probes: u32,
    /// Time between two probes, and after the last one.
    pub interval: Duration,
}
