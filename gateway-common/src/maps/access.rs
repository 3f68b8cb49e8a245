//! Access to the configuration maps and the counters.

use crate::{
    drop_reason::Attribution,
    flow::Direction,
    maps::{
        AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress,
        Port, PortKey, Statistic,
    },
};

use core::{ops::Deref, ptr::NonNull};

/// A value in a map that is replaced whole, and lives as long as the packet's way.
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
    /// Wraps a map's pointer.
    ///
    /// # Safety
    /// The value is live and not written until the packet's way ends.
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
        // SAFETY: `new` demands that the value lives and is not written.
        unsafe { self.0.as_ref() }
    }
}

/// The configuration that the agent writes.
///
/// Small values are returned by copy, so that a stage works on one consistent reading.
pub trait ConfigMaps {
    /// Returns the attachment of the interface that the packet arrived on.
    fn attachment(&self) -> Option<Attachment>;
    /// Returns the egress side of an attachment.
    fn egress(&self, slot: u32) -> Option<Egress>;
    /// Returns a local address.
    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress>;
    /// Returns a port that a resource offers. It is a reference: entries are replaced whole, so it is
    /// consistent.
    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>>;
    /// Returns the backend slot at an index of the Maglev tables.
    fn maglev(&self, index: u32) -> Option<u32>;
    /// Returns a backend.
    fn backend(&self, slot: u32) -> Option<Backend>;
    /// Returns an SNAT address.
    fn nat_address(&self, index: u32) -> Option<NatAddress>;
    /// Returns a connection with its current generation.
    fn connection(&self, slot: u32) -> Option<Connection>;
    /// Returns the limits of a connection.
    fn limits(&self, slot: u32) -> Option<Limits>;
    /// Returns the nanoseconds that a reject costs (see [`Limits`]); 0 is no limit.
    fn reject_cost(&self) -> u64;
    /// Returns the key of the hashes that select backends and ports.
    fn hash_seed(&self) -> u64;
}

/// The counters.
pub trait Counters {
    /// Counts a packet that was not forwarded.
    fn count_drop(&mut self, attribution: Attribution);
    /// Counts a forwarded packet, with the length of its IP packet in bytes.
    fn count_forwarded(&mut self, connection_slot: u32, direction: Direction, bytes: u16);
    /// Counts a flow that was opened.
    fn count_flow_opened(&mut self, connection_slot: u32);
    /// Adds one to a statistic.
    fn count(&mut self, statistic: Statistic);
}
