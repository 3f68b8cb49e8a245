//! The flow tables of an address family: two tables of entries, and the records of fragmented datagrams.

use crate::{
    family::Family,
    flow::{DatagramKey, Flow, FlowKey, FlowRef, FragmentRecord},
};

use core::ptr::NonNull;

/// A flow table of an address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Established flows. Entries are never evicted.
    Established,
    /// Half-open flows. The least recently used entry is evicted to make room.
    HalfOpen,
}

impl Table {
    /// Both tables.
    pub const ALL: [Self; 2] = [Self::Established, Self::HalfOpen];
}

/// Cause of a failed insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The table has an entry with this key.
    Exists,
    /// The table is full.
    Full,
}

/// The flow entries and the fragment records of an address family.
///
/// Look-ups return references, since the mutable fields of an entry are written in place.
pub trait FlowTables<F: Family> {
    /// Returns the entry with this key.
    fn lookup_flow(&self, table: Table, key: &FlowKey<F>) -> Option<FlowRef<F>>;

    /// Inserts an entry unless the table has one with this key.
    ///
    /// # Errors
    /// [`InsertError`], with the table unchanged.
    fn insert_flow(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
        flow: &Flow<F>,
    ) -> Result<(), InsertError>;

    /// Removes the entry with this key, if there is one.
    fn remove_flow(&mut self, table: Table, key: &FlowKey<F>);

    /// Returns memory to build an entry in. It belongs to the current packet alone and holds arbitrary bytes.
    fn flow_scratch(&mut self) -> Option<NonNull<Flow<F>>>;

    /// Returns the record of a fragmented datagram, if there is one.
    fn fragment_record(&self, key: &DatagramKey<F>) -> Option<FragmentRecord>;

    /// Stores the record of a fragmented datagram for its later fragments. The least recently used record is evicted
    /// to make room.
    fn record_fragment(&mut self, key: &DatagramKey<F>, record: &FragmentRecord);
}
