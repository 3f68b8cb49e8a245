//! Flow tables: entries, fragments, and the clock by which entries are stamped.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::{IterableMap as _, MapError},
};
use gateway_common::{
    Family, V4, V6,
    flow::{CoarseTime, DatagramKey, Flow, FlowKey, FragmentRecord, Table},
    maps::IdentificationState,
};

use crate::bpf::{
    maps::handles::{HashOf, Maps, PodWrapper, ignore_not_found, take_map},
    syscalls,
};

/// Flow tables of one address family.
pub struct FlowMaps<F: Family> {
    established: HashOf<FlowKey<F>, Flow<F>>,
    half_open: HashOf<FlowKey<F>, Flow<F>>,
    fragments: HashOf<DatagramKey<F>, FragmentRecord>,
}

impl<F: Family> FlowMaps<F> {
    pub(super) fn from_ebpf(
        ebpf: &mut Ebpf,
        [established, half_open, fragments]: [&str; 3],
    ) -> Result<Self> {
        Ok(Self {
            established: take_map(ebpf, established)?,
            half_open: take_map(ebpf, half_open)?,
            fragments: take_map(ebpf, fragments)?,
        })
    }

    const fn table(&self, table: Table) -> &HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &self.established,
            Table::HalfOpen => &self.half_open,
        }
    }

    const fn table_mut(&mut self, table: Table) -> &mut HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &mut self.established,
            Table::HalfOpen => &mut self.half_open,
        }
    }
}

/// An address family whose flow tables are in [`Maps`].
pub trait HasFlowMaps: Family {
    /// Returns the family's flow tables.
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self>;
    /// Returns the family's flow tables, mutably.
    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self>;
}

impl HasFlowMaps for V4 {
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self> {
        &maps.flows_v4
    }

    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self> {
        &mut maps.flows_v4
    }
}

impl HasFlowMaps for V6 {
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self> {
        &maps.flows_v6
    }

    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self> {
        &mut maps.flows_v6
    }
}

impl Maps {
    /// Returns the descriptor of a flow table.
    #[must_use]
    pub fn flow_table_fd<F: HasFlowMaps>(&self, table: Table) -> BorrowedFd<'_> {
        F::flow_maps(self).table(table).map().fd().as_fd()
    }

    /// Calls `visit` for every entry of a flow table.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn for_each_flow<F: HasFlowMaps>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(self.flow_table_fd::<F>(table), visit)
    }

    /// Returns an entry of a flow table.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn flow<F: HasFlowMaps>(
        &self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<Option<Flow<F>>, MapError> {
        match F::flow_maps(self).table(table).get(&PodWrapper(*key), 0) {
            Ok(flow) => Ok(Some(flow.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry of a flow table, if it exists.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn remove_flow<F: HasFlowMaps>(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<(), MapError> {
        ignore_not_found(
            F::flow_maps_mut(self)
                .table_mut(table)
                .remove(&PodWrapper(*key)),
        )
    }

    /// Deletes the records of all fragmented datagrams, so that later fragments match none.
    ///
    /// # Errors
    /// Fails if the kernel refuses a deletion.
    pub fn clear_fragments<F: HasFlowMaps>(&mut self) -> Result<(), MapError> {
        let fragments = &mut F::flow_maps_mut(self).fragments;
        let keys: Vec<_> = fragments.keys().collect::<Result<_, _>>()?;
        for key in keys {
            ignore_not_found(fragments.remove(&key))?;
        }
        Ok(())
    }

    /// Sets the allocation state of the identifications in a bucket.
    ///
    /// # Errors
    /// Fails if the kernel refuses the write.
    pub fn set_identifications(
        &mut self,
        bucket: u32,
        state: IdentificationState,
    ) -> Result<(), MapError> {
        self.identifications.set(bucket, PodWrapper(state), 0)
    }
}

/// Returns the present time of the clock by which flow entries are stamped.
#[must_use]
pub fn now() -> CoarseTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the struct, which outlives the call. CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    CoarseTime::from_nanoseconds(nanoseconds)
}
