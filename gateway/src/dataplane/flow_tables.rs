//! The flow tables by descriptors of their own, so that they can be gone through while others use the
//! rest of the maps.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use gateway_common::{
    V4, V6,
    flow::{Flow, FlowKey, Table},
    maps::Usage,
};

use crate::dataplane::{
    maps::{Maps, Tables},
    syscalls,
};

/// The descriptors.
#[derive(Debug)]
pub struct FlowTables {
    v4: Descriptors,
    v6: Descriptors,
    usage: OwnedFd,
}

/// The descriptors of a family's tables.
#[derive(Debug)]
pub struct Descriptors {
    established: OwnedFd,
    embryonic: OwnedFd,
}

impl Descriptors {
    fn new<F: Tables>(maps: &Maps) -> io::Result<Self> {
        let descriptor = |table| maps.flow_table::<F>(table).try_clone_to_owned();
        Ok(Self {
            established: descriptor(Table::Established)?,
            embryonic: descriptor(Table::Embryonic)?,
        })
    }

    fn of(&self, table: Table) -> BorrowedFd<'_> {
        match table {
            Table::Established => self.established.as_fd(),
            Table::Embryonic => self.embryonic.as_fd(),
        }
    }
}

/// A family whose tables are among the descriptors.
pub trait Described: Tables {
    /// Its tables.
    fn descriptors(tables: &FlowTables) -> &Descriptors;
}

impl Described for V4 {
    fn descriptors(tables: &FlowTables) -> &Descriptors {
        &tables.v4
    }
}

impl Described for V6 {
    fn descriptors(tables: &FlowTables) -> &Descriptors {
        &tables.v6
    }
}

impl FlowTables {
    /// Of these maps.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new(maps: &Maps) -> io::Result<Self> {
        Ok(Self {
            v4: Descriptors::new::<V4>(maps)?,
            v6: Descriptors::new::<V6>(maps)?,
            usage: maps.usage_table().try_clone_to_owned()?,
        })
    }

    /// Flows by link slot; connections that have none are left out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flows_in_use(&self) -> io::Result<HashMap<u32, u64>> {
        let mut flows = HashMap::new();
        syscalls::for_each(self.usage.as_fd(), |slot: &u32, usage: &Usage| {
            if usage.flows > 0 {
                flows.insert(*slot, usage.flows);
            }
        })?;
        Ok(flows)
    }

    /// Calls `visit` for every entry. Those that come and go meanwhile may be missed or seen twice.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn for_each<F: Described>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(F::descriptors(self).of(table), visit)
    }

    /// An entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get<F: Described>(&self, table: Table, key: &FlowKey<F>) -> io::Result<Option<Flow<F>>> {
        syscalls::lookup(F::descriptors(self).of(table), key)
    }

    /// Puts an entry in.
    ///
    /// # Errors
    /// When the kernel refuses: the table is full.
    pub fn insert<F: Described>(
        &self,
        table: Table,
        key: &FlowKey<F>,
        flow: &Flow<F>,
    ) -> io::Result<()> {
        syscalls::update(F::descriptors(self).of(table), key, flow)
    }

    /// Removes an entry; says whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove<F: Described>(&self, table: Table, key: &FlowKey<F>) -> io::Result<bool> {
        match syscalls::delete(F::descriptors(self).of(table), key) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
