//! Application of a plan to the maps.

use std::{collections::HashSet, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{MapError, PerCpuValues, xdp::XdpMapError};
use gateway_common::{
    DropReason,
    maps::{
        Attachment, ConnectionCounters, ConnectionDropKey, ConnectionUsage, attachment_index, name,
    },
};

use crate::{
    bpf::{
        maps::handles::{Maps, PodWrapper, ignore_not_found, syscall_error},
        syscalls,
    },
    compile::{
        map_snapshot::MapSnapshot,
        plan::{MapWrite, Plan, apply_to_snapshot},
    },
};

/// Number of counter resets above which the keys of the drop counters are listed first.
const MAX_UNFILTERED_RESETS: usize = 16;

impl Maps {
    /// Applies a plan to the maps, and each of its writes to `current`.
    ///
    /// After a failure `current` contains the writes that succeeded before it.
    ///
    /// # Errors
    /// Fails if a write fails.
    pub fn apply_plan(&mut self, plan: &Plan, current: &mut MapSnapshot) -> Result<()> {
        let ends_flows = plan.removes_backends(current);
        for write in &plan.revoke {
            self.apply_write(*write, None, current)?;
        }
        if !plan.revoke.is_empty() {
            wait_for_grace_period();
        }
        let rest = plan.grant.iter().chain(&plan.release);
        let resets = rest.filter(|write| matches!(write, MapWrite::ResetCounters(_)));
        // Deleting the key of every drop reason of every connection would dominate the time of a start.
        let with_drops = (resets.count() > MAX_UNFILTERED_RESETS)
            .then(|| self.connections_with_drops())
            .transpose()
            .with_context(|| format!("could not read map {}", name::CONN_DROPS))?;
        let with_drops = with_drops.as_ref();
        for write in plan.grant.iter().chain(&plan.release) {
            self.apply_write(*write, with_drops, current)?;
        }
        // A backend's slot is freed after the Maglev tables that name it have changed, so this wait comes last.
        if ends_flows {
            wait_for_grace_period();
        }
        Ok(())
    }

    fn apply_write(
        &mut self,
        write: MapWrite,
        with_drops: Option<&HashSet<u32>>,
        current: &mut MapSnapshot,
    ) -> Result<()> {
        let result = match write {
            MapWrite::ResetCounters(slot) => self.reset_counters(slot, with_drops),
            write => self.write_entry(write),
        };
        result.with_context(|| format!("could not write {write:?}"))?;
        apply_to_snapshot(current, write);
        Ok(())
    }

    fn write_entry(&mut self, write: MapWrite) -> Result<(), MapError> {
        match write {
            MapWrite::Attachment(ifindex, value) => self.write_attachment(ifindex, value),
            MapWrite::Egress(slot, value) => self.egress.set(slot, PodWrapper(value), 0),
            MapWrite::TxPort(slot, Some(ifindex)) => {
                self.tx_ports
                    .set(slot, ifindex, None, 0)
                    .map_err(|error| match error {
                        XdpMapError::MapError(error) => error,
                        // The error concerns only programs chained to a device, and none is chained here.
                        XdpMapError::ChainedProgramNotSupported => MapError::KeyNotFound,
                    })
            }
            MapWrite::TxPort(slot, None) => ignore_not_found(self.remove_tx_port(slot)),
            MapWrite::Address(key, Some(value)) => {
                self.addresses.insert(PodWrapper(key), PodWrapper(value), 0)
            }
            MapWrite::Address(key, None) => {
                ignore_not_found(self.addresses.remove(&PodWrapper(key)))
            }
            MapWrite::Port(key, Some(value)) => {
                self.ports.insert(PodWrapper(key), PodWrapper(value), 0)
            }
            MapWrite::Port(key, None) => ignore_not_found(self.ports.remove(&PodWrapper(key))),
            MapWrite::Maglev(index, slot) => self.maglev.set(index, PodWrapper(slot), 0),
            MapWrite::Backend(slot, value) => self.backends.set(slot, PodWrapper(value), 0),
            MapWrite::NatAddress(index, value) => {
                self.nat_addresses.set(index, PodWrapper(value), 0)
            }
            MapWrite::Connection(slot, value) => self.connections.set(slot, PodWrapper(value), 0),
            MapWrite::Limits(slot, value) => self.limits.set(slot, PodWrapper(value), 0),
            MapWrite::ResetCounters(slot) => self.reset_counters(slot, None),
        }
    }

    fn write_attachment(
        &mut self,
        ifindex: u32,
        value: Option<Attachment>,
    ) -> Result<(), MapError> {
        let index = attachment_index(ifindex);
        let current = self.attachments.get(&index, 0)?.0;
        match value {
            Some(value) if current.ifindex == ifindex || current.ifindex == 0 => {
                self.attachments.set(index, PodWrapper(value), 0)
            }
            Some(value) => {
                self.attachment_overflow
                    .insert(PodWrapper(ifindex), PodWrapper(value), 0)
            }
            None if current.ifindex == ifindex => {
                self.attachments
                    .set(index, PodWrapper(Attachment::default()), 0)
            }
            None => ignore_not_found(self.attachment_overflow.remove(&PodWrapper(ifindex))),
        }
    }

    fn remove_tx_port(&self, slot: u32) -> Result<(), MapError> {
        syscalls::delete(self.tx_ports_fd.as_fd(), &slot)
            .map_err(|io_error| syscall_error("bpf_map_delete_elem", io_error))
    }

    /// Returns the slots of the connections that have drops counted.
    fn connections_with_drops(&self) -> Result<HashSet<u32>, MapError> {
        self.connection_drops
            .keys()
            .map(|key| key.map(|PodWrapper(key)| key.connection_slot))
            .collect()
    }

    /// Sets a connection's counters to zero. `with_drops` has the connections with drops counted, if known.
    fn reset_counters(
        &mut self,
        slot: u32,
        with_drops: Option<&HashSet<u32>>,
    ) -> Result<(), MapError> {
        let zeros = vec![PodWrapper(ConnectionCounters::default()); self.cpus];
        let zeros = PerCpuValues::try_from(zeros)
            .map_err(|io_error| syscall_error("per-CPU values", io_error))?;
        self.connection_counters.set(slot, zeros, 0)?;
        self.usage
            .set(slot, PodWrapper(ConnectionUsage::default()), 0)?;
        if with_drops.is_some_and(|with_drops| !with_drops.contains(&slot)) {
            return Ok(());
        }
        for reason in DropReason::ALL {
            let key = ConnectionDropKey {
                connection_slot: slot,
                reason: *reason as u32,
            };
            ignore_not_found(self.connection_drops.remove(&PodWrapper(key)))?;
        }
        Ok(())
    }
}

/// Waits until every packet whose processing began before the call is finished.
///
/// Afterwards no packet in progress can have read the maps as they were before the preceding writes.
fn wait_for_grace_period() {
    // A global membarrier waits for an RCU grace period (kernel/sched/membarrier.c), and XDP programs run
    // within RCU read-side critical sections.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers and accesses no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // The kernel refuses the command when it has nohz_full CPUs. A packet takes microseconds, so 10 ms suffice.
        std::thread::sleep(Duration::from_millis(10));
    }
}
