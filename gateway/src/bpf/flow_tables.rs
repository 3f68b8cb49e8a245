//! Flow tables by descriptors of their own, so that garbage collection can iterate over them while other tasks use the
//! rest of the maps.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use gateway_common::{
    V4, V6,
    flow::{Flow, FlowKey, Table},
    maps::ConnectionUsage,
};

use crate::bpf::{
    maps::{HasFlowMaps, Maps},
    syscalls,
};

/// Descriptors of the flow tables, and of the map of connection usage.
#[derive(Debug)]
pub struct FlowTableSet {
    v4: FlowTableFds,
    v6: FlowTableFds,
    usage: OwnedFd,
}

/// Descriptors of the flow tables of one address family.
#[derive(Debug)]
pub struct FlowTableFds {
    established: OwnedFd,
    half_open: OwnedFd,
}

impl FlowTableFds {
    fn new<F: HasFlowMaps>(maps: &Maps) -> io::Result<Self> {
        let descriptor = |table| maps.flow_table_fd::<F>(table).try_clone_to_owned();
        Ok(Self {
            established: descriptor(Table::Established)?,
            half_open: descriptor(Table::HalfOpen)?,
        })
    }

    fn table(&self, table: Table) -> BorrowedFd<'_> {
        match table {
            Table::Established => self.established.as_fd(),
            Table::HalfOpen => self.half_open.as_fd(),
        }
    }
}

/// An address family whose flow tables are in [`FlowTableSet`].
pub trait HasFlowTableFds: HasFlowMaps {
    /// Returns the descriptors of the family's flow tables.
    fn flow_table_fds(tables: &FlowTableSet) -> &FlowTableFds;
}

impl HasFlowTableFds for V4 {
    fn flow_table_fds(tables: &FlowTableSet) -> &FlowTableFds {
        &tables.v4
    }
}

impl HasFlowTableFds for V6 {
    fn flow_table_fds(tables: &FlowTableSet) -> &FlowTableFds {
        &tables.v6
    }
}

impl FlowTableSet {
    /// Duplicates the descriptors of the maps.
    ///
    /// # Errors
    /// Fails if the process has no descriptors left.
    pub fn new(maps: &Maps) -> io::Result<Self> {
        Ok(Self {
            v4: FlowTableFds::new::<V4>(maps)?,
            v6: FlowTableFds::new::<V6>(maps)?,
            usage: maps.usage_fd().try_clone_to_owned()?,
        })
    }

    /// Returns the number of flows by connection slot, without connections that have none.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn flows_by_connection(&self) -> io::Result<HashMap<u32, u64>> {
        let mut flows = HashMap::new();
        syscalls::for_each(self.usage.as_fd(), |slot: &u32, usage: &ConnectionUsage| {
            if usage.flows > 0 {
                flows.insert(*slot, usage.flows);
            }
        })?;
        Ok(flows)
    }

    /// Calls `visit` for every entry. Entries that are inserted or deleted meanwhile may be missed or visited twice.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn for_each<F: HasFlowTableFds>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(F::flow_table_fds(self).table(table), visit)
    }

    /// Returns an entry, if it exists.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn get<F: HasFlowTableFds>(
        &self,
        table: Table,
        key: &FlowKey<F>,
    ) -> io::Result<Option<Flow<F>>> {
        syscalls::lookup(F::flow_table_fds(self).table(table), key)
    }

    /// Inserts an entry or replaces it.
    ///
    /// # Errors
    /// Fails if the table is full.
    pub fn insert<F: HasFlowTableFds>(
        &self,
        table: Table,
        key: &FlowKey<F>,
        flow: &Flow<F>,
    ) -> io::Result<()> {
        syscalls::update(F::flow_table_fds(self).table(table), key, flow)
    }

    /// Removes an entry, and returns true if it existed.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn remove<F: HasFlowTableFds>(&self, table: Table, key: &FlowKey<F>) -> io::Result<bool> {
        match syscalls::delete(F::flow_table_fds(self).table(table), key) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
