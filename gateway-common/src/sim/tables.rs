//! Flow tables and array maps in ordinary memory.

use crate::{
    family::Family,
    flow::{Flow, FlowKey, FlowRef, InsertError, Table},
};

use std::{
    cell::{RefCell, UnsafeCell},
    collections::{BTreeMap, HashMap},
    ptr::NonNull,
    rc::Rc,
};

/// One flow table.
#[derive(Debug)]
pub struct SimFlowTable<F: Family> {
    entries: HashMap<FlowKey<F>, Rc<UnsafeCell<Flow<F>>>>,
    /// Maximum number of entries. An insertion beyond it fails.
    pub capacity: usize,
}

impl<F: Family> Clone for SimFlowTable<F> {
    fn clone(&self) -> Self {
        let mut copy = Self {
            entries: HashMap::with_capacity(self.entries.len()),
            capacity: self.capacity,
        };
        for (key, flow) in self.entries() {
            copy.set(key, flow);
        }
        copy
    }
}

impl<F: Family> SimFlowTable<F> {
    /// Returns the number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Returns copies of all entries, sorted by key.
    #[must_use]
    pub fn entries(&self) -> Vec<(FlowKey<F>, Flow<F>)> {
        let copy = |entry: &Rc<UnsafeCell<Flow<F>>>| {
            // SAFETY: nothing else runs while this copies: writes go through `FlowRef` only, in the same thread (`Rc`
            // keeps the table there).
            unsafe { *entry.get() }
        };
        let mut entries: Vec<_> = self.entries.iter().map(|(k, v)| (*k, copy(v))).collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    /// Inserts or replaces an entry.
    pub fn set(&mut self, key: FlowKey<F>, flow: Flow<F>) {
        self.entries.insert(key, Rc::new(UnsafeCell::new(flow)));
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &FlowKey<F>) {
        self.entries.remove(key);
    }
}

/// The flow tables of a family.
#[derive(Clone, Debug)]
pub struct SimFlowTables<F: Family> {
    /// Established flows.
    pub established: SimFlowTable<F>,
    /// Half-open flows. The table does not evict: a test that needs eviction removes entries itself.
    pub half_open: SimFlowTable<F>,
}

impl<F: Family> Default for SimFlowTables<F> {
    fn default() -> Self {
        let table = || SimFlowTable {
            entries: HashMap::new(),
            capacity: 1 << 20,
        };
        Self {
            established: table(),
            half_open: table(),
        }
    }
}

impl<F: Family> SimFlowTables<F> {
    pub(crate) const fn table(&self, table: Table) -> &SimFlowTable<F> {
        match table {
            Table::Established => &self.established,
            Table::HalfOpen => &self.half_open,
        }
    }

    pub(crate) const fn table_mut(&mut self, table: Table) -> &mut SimFlowTable<F> {
        match table {
            Table::Established => &mut self.established,
            Table::HalfOpen => &mut self.half_open,
        }
    }

    pub(crate) fn lookup(&self, table: Table, key: &FlowKey<F>) -> Option<FlowRef<F>> {
        let entry = self.table(table).entries.get(key)?;
        let pointer = NonNull::new(entry.get())?;
        // SAFETY: the cell's memory stays in place until the entry is removed. After a stage has removed an entry, it
        // reads only from a copy of it.
        Some(unsafe { FlowRef::new(pointer) })
    }

    pub(crate) fn insert(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
        flow: &Flow<F>,
    ) -> Result<(), InsertError> {
        let table = self.table_mut(table);
        if table.entries.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if table.entries.len() >= table.capacity {
            return Err(InsertError::Full);
        }
        table.set(*key, *flow);
        Ok(())
    }
}

/// Values of an array map that the data path writes atomically through shared references.
#[derive(Debug)]
pub struct AtomicMap<T>(RefCell<BTreeMap<u32, Box<UnsafeCell<T>>>>);

impl<T> Default for AtomicMap<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Copy + Default> Clone for AtomicMap<T> {
    fn clone(&self) -> Self {
        let copy = Self::default();
        for index in self.indices() {
            copy.set(index, self.get(index));
        }
        copy
    }
}

impl<T: Copy + Default> AtomicMap<T> {
    /// Returns the indices that were read or written, in order.
    #[must_use]
    pub fn indices(&self) -> Vec<u32> {
        self.0.borrow().keys().copied().collect()
    }

    /// Returns the value at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> T {
        // SAFETY: nothing else runs while this copies: the map stays in one thread.
        unsafe { self.entry(index).read() }
    }

    /// Replaces the value at an index.
    pub fn set(&self, index: u32, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.entry(index).write(value) }
    }

    /// Returns a pointer to the value at an index. The value stays in place.
    pub(crate) fn entry(&self, index: u32) -> NonNull<T> {
        let mut entries = self.0.borrow_mut();
        let cell = entries.entry(index).or_default();
        // SAFETY: the address of a cell is not null.
        unsafe { NonNull::new_unchecked(cell.get()) }
    }
}
