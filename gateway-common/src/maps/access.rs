//! Access to the configuration maps and the counters, as parts of the platform.

use crate::{
    drop_reason::Attribution,
    flow::Direction,
    maps::{
        AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress,
        Port, PortKey, Statistic,
    },
};

use core::{ops::Deref, ptr::NonNull};

/// A reference to a map value that is replaced whole and lives until the packet's verdict.
#[derive(Debug)]
pub struct MapValueRef<T>(NonNull<T>);

impl<T> Clone for MapValueRef<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MapValueRef<T> {}

impl<T> MapValueRef<T> {
    /// Wraps a pointer that a map returned.
    ///
    /// # Safety
    /// The value is live, and is not written until the packet's verdict.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(value: NonNull<T>) -> Self {
        Self(value)
    }
}

impl<T> Deref for MapValueRef<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` demands that the value is live and is not written.
        unsafe { self.0.as_ref() }
    }
}

/// The configuration, which the agent writes.
///
/// Small values are returned by copy, so that a stage works on one consistent reading.
pub trait ConfigMaps {
    /// Returns the attachment of the interface that the packet arrived on.
    fn attachment(&self) -> Option<Attachment>;
    /// Returns the sending side of an attachment.
    fn egress(&self, slot: u32) -> Option<Egress>;
    /// Returns the local address with this key.
    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress>;
    /// Returns a port that a resource offers. The result is a reference: entries are replaced whole, so it stays
    /// consistent.
    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>>;
    /// Returns the backend slot at an index of the Maglev tables.
    fn maglev(&self, index: u32) -> Option<u32>;
    /// Returns a backend.
    fn backend(&self, slot: u32) -> Option<Backend>;
    /// Returns the SNAT address at an index.
    fn nat_address(&self, index: u32) -> Option<NatAddress>;
    /// Returns a connection, with its present generation.
    fn connection(&self, slot: u32) -> Option<Connection>;
    /// Returns the limits of a connection.
    fn limits(&self, slot: u32) -> Option<Limits>;
    /// Returns the nanoseconds that a reject costs (see [`Limits`]). 0 is no limit.
    fn reject_cost(&self) -> u64;
    /// Returns the seed of the hashes that select backends, SNAT ports and identifications.
    fn hash_seed(&self) -> u64;
    /// Returns the number of flows that each flow table is made for.
    fn flow_table_size(&self) -> u64;
    /// Returns the established flows that a connection may have, as a multiple of those that the flow table has room
    /// for, times 2^[`SHARE_SHIFT`](crate::pipeline::SHARE_SHIFT).
    fn flow_table_share(&self) -> u64;
}

/// The counters.
pub trait Counters {
    /// Counts a packet that was not forwarded.
    fn count_drop(&mut self, attribution: Attribution);
    /// Counts a forwarded packet and the length of its IP packet in bytes.
    fn count_forwarded(&mut self, connection_slot: u32, direction: Direction, bytes: u16);
    /// Counts a flow that was opened.
    fn count_flow_opened(&mut self, connection_slot: u32);
    /// Adds one to a statistic.
    fn count(&mut self, statistic: Statistic);
}
