//! Snapshot of the host's state that flow GC terminates flows by.

use std::collections::BTreeMap;

use gateway_common::maps::{AddressKey, Egress};

use crate::{agent::flow_gc::DepartedBackends, compile::map_snapshot::MapSnapshot};

/// Snapshot of the interfaces and next hops that lead to the ends of flows.
#[derive(Debug, Default)]
pub struct GcSnapshot {
    pub(super) departed_backends: DepartedBackends,
    /// SNAT addresses that drain.
    draining: Vec<AddressKey>,
    /// Egress entries with interface numbers, by attachment slot.
    pub(super) egress: BTreeMap<u32, (Egress, u32)>,
}

impl GcSnapshot {
    /// Takes a snapshot of the maps' contents.
    #[must_use]
    pub fn new(
        maps: &MapSnapshot,
        departed_backends: DepartedBackends,
        draining: Vec<AddressKey>,
    ) -> Self {
        let egress = maps.egress.iter().filter_map(|(slot, egress)| {
            let ifindex = maps.tx_ports.get(slot)?;
            Some((*slot, (*egress, *ifindex)))
        });
        Self {
            departed_backends,
            draining,
            egress: egress.collect(),
        }
    }

    /// Returns the SNAT addresses that drained.
    #[must_use]
    pub fn draining(&self) -> &[AddressKey] {
        &self.draining
    }

    /// Returns the next hops of backends that had left their slot.
    #[must_use]
    pub const fn departed_backends(&self) -> &DepartedBackends {
        &self.departed_backends
    }
}
