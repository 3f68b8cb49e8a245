//! The flow tables of an address family.

use crate::{
    family::Family,
    flow::{DatagramKey, Flow, FlowKey, FlowRef, FragmentRecord},
};

use core::ptr::NonNull;

/// A flow table of an address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Established flows: never evicted.
    Established,
    /// Half-open flows: the least recently used makes room.
    HalfOpen,
}

impl Table {
    /// Both tables.
    pub const ALL: [Self; 2] = [Self::Established, Self::HalfOpen];
}

/// Cause of a flow entry that was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The table has an entry with this key.
    Exists,
    /// The table is full.
    Full,
}

/// The flow entries and the fragment records of an address family.
///
/// Flow entries are returned by reference, since their changing fields are written in place.
pub trait FlowTables<F: Family> {
    /// Returns the entry with this key.
    fn lookup_flow(&self, table: Table, key: &FlowKey<F>) -> Option<FlowRef<F>>;

    /// Inserts an entry if its table has none with this key.
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

    /// Returns memory to build an entry in. It belongs to this packet alone and holds arbitrary bytes.
    fn flow_scratch(&mut self) -> Option<NonNull<Flow<F>>>;

    /// Returns the record of a fragmented datagram.
    fn fragment_record(&self, key: &DatagramKey<F>) -> Option<FragmentRecord>;

    /// Stores the record of a fragmented datagram for its later fragments. The least recently used record
    /// makes room.
    fn record_fragment(&mut self, key: &DatagramKey<F>, record: &FragmentRecord);
}
