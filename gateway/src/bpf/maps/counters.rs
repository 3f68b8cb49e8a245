//! Counters, rate meters and address conflicts, which the data path writes and the agent reads.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Result;
use aya::maps::{IterableMap as _, MapError};
use gateway_common::{
    DropReason,
    maps::{
        AddressConflict, AddressKey, AttachmentDropKey, ConnectionCounters, ConnectionDropKey,
        ConnectionUsage, Statistic,
    },
};

use crate::bpf::{
    maps::handles::{Maps, PodWrapper, ignore_not_found},
    syscalls,
};

impl Maps {
    /// Returns the numbers of dropped packets by reason, without reasons that were never counted.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn drops(&self) -> Result<BTreeMap<DropReason, u64>, MapError> {
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let count: u64 = self.drops.get(&(*reason as u32), 0)?.iter().sum();
            if count > 0 {
                drops.insert(*reason, count);
            }
        }
        Ok(drops)
    }

    /// Returns the numbers of one connection's dropped packets by reason, without reasons that were never counted.
    ///
    /// `counters` are the connection's, from [`Self::connection_counters`]: they hold the number of packets that were
    /// dropped because the connection is not approved. Each other reason takes one system call.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn connection_drops(
        &self,
        slot: u32,
        counters: &ConnectionCounters,
    ) -> Result<BTreeMap<DropReason, u64>, MapError> {
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let key = ConnectionDropKey {
                connection_slot: slot,
                reason: *reason as u32,
            };
            match self.connection_drops.get(&PodWrapper(key), 0) {
                Ok(counts) => {
                    drops.insert(*reason, counts.iter().sum());
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if counters.not_approved > 0 {
            drops.insert(DropReason::ConnectionNotApproved, counters.not_approved);
        }
        Ok(drops)
    }

    /// Returns the numbers of frames that each attachment dropped or did not take, by interface index and reason.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn attachment_drops(&self) -> Result<HashMap<u32, BTreeMap<DropReason, u64>>, MapError> {
        let mut drops: HashMap<u32, BTreeMap<DropReason, u64>> = HashMap::new();
        for entry in self.attachment_drops.iter() {
            let (PodWrapper(key), counts) = entry?;
            if let Some(reason) = DropReason::from_number(key.reason) {
                let of_interface = drops.entry(key.ifindex).or_default();
                of_interface.insert(reason, counts.iter().sum());
            }
        }
        Ok(drops)
    }

    /// Deletes the counts of an interface that is no attachment any more. `reasons` are those that have one.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn delete_attachment_drops<'a>(
        &mut self,
        ifindex: u32,
        reasons: impl Iterator<Item = &'a DropReason>,
    ) -> Result<(), MapError> {
        for reason in reasons {
            let key = AttachmentDropKey {
                ifindex,
                reason: *reason as u32,
            };
            ignore_not_found(self.attachment_drops.remove(&PodWrapper(key)))?;
        }
        Ok(())
    }

    /// Returns the traffic counters of one connection, summed over all CPUs.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn connection_counters(&self, slot: u32) -> Result<ConnectionCounters, MapError> {
        let mut total = ConnectionCounters::default();
        for PodWrapper(one) in self.connection_counters.get(&slot, 0)?.iter() {
            total.packets_to_service += one.packets_to_service;
            total.bytes_to_service += one.bytes_to_service;
            total.packets_to_consumer += one.packets_to_consumer;
            total.bytes_to_consumer += one.bytes_to_consumer;
            total.flows_opened += one.flows_opened;
            total.not_approved += one.not_approved;
        }
        Ok(total)
    }

    /// Returns the values of all [`Statistic`]s, summed over all CPUs.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn statistics(&self) -> Result<Vec<(Statistic, u64)>, MapError> {
        let mut counts = Vec::with_capacity(Statistic::COUNT);
        for statistic in Statistic::ALL {
            let count = self.statistics.get(&(*statistic as u32), 0)?.iter().sum();
            counts.push((*statistic, count));
        }
        Ok(counts)
    }

    /// Returns a connection's rate meters and number of flows.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn usage(&self, slot: u32) -> Result<ConnectionUsage, MapError> {
        Ok(self.usage.get(&slot, 0)?.0)
    }

    /// Returns the descriptor of the map of [`ConnectionUsage`].
    #[must_use]
    pub fn usage_fd(&self) -> BorrowedFd<'_> {
        self.usage.map().fd().as_fd()
    }

    /// Sets a connection's rate meters and number of flows.
    ///
    /// A change that the data path makes to the meters at the same time may be lost.
    ///
    /// # Errors
    /// Fails if the kernel refuses the write.
    pub fn set_usage(&mut self, slot: u32, usage: ConnectionUsage) -> Result<(), MapError> {
        self.usage.set(slot, PodWrapper(usage), 0)
    }

    /// Returns the address conflicts that the data path recorded: other hosts that use a local address.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn conflicts(&self) -> io::Result<BTreeMap<AddressKey, AddressConflict>> {
        let mut conflicts = BTreeMap::new();
        let map = self.conflicts.map().fd().as_fd();
        syscalls::for_each(map, |key: &AddressKey, conflict: &AddressConflict| {
            conflicts.insert(*key, *conflict);
        })?;
        Ok(conflicts)
    }

    /// Deletes the recorded conflict about an address.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn delete_conflict(&mut self, key: &AddressKey) -> Result<(), MapError> {
        ignore_not_found(self.conflicts.remove(&PodWrapper(*key)))
    }
}
