//! What differs between the kernel and a native run: packet memory, maps, clock.

use core::ptr::NonNull;

use crate::{
    DropReason, V4, V6,
    checksum::Sum,
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Egress, Link, NatAddress, Port, PortKey,
        Statistic,
    },
};

/// Why a flow entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The key is taken.
    Exists,
    /// The table has no room.
    Full,
}

/// The world a packet is processed in.
///
/// Values are returned by copy where they are small, so that a stage works on one consistent
/// reading; flow entries by reference, since their changing fields are written in place.
pub trait Environment {
    /// The interface that the packet came in by.
    fn ifindex(&self) -> u32;

    /// The frame's length in bytes.
    fn packet_length(&self) -> usize;

    /// A pointer to `length` bytes of the frame at `offset`; none if the frame ends before.
    fn packet(&self, offset: usize, length: usize) -> Option<NonNull<u8>>;

    /// Makes the frame `length` bytes long, cutting it or adding zeros, and says whether that was
    /// possible. All windows taken before are void afterwards.
    fn resize(&mut self, length: usize) -> bool;

    /// The one's complement sum over `length` bytes of the frame at `offset`; none if the frame
    /// ends before or the length is beyond what can be summed.
    fn sum(&mut self, offset: usize, length: usize) -> Option<Sum>;

    /// The value itself. In the kernel it comes back as one of which nothing is known but its
    /// type, so that the verifier goes on once and not once for each way it may have come about.
    fn opaque(&mut self, value: u16) -> u16;

    /// Memory to build a flow entry of IPv4 in, this packet's alone; stages ask their
    /// [`Family`](crate::Family). What is in it is left from before.
    fn scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>>;
    /// The same for IPv6.
    fn scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>>;

    /// The time.
    fn now(&self) -> Tick;

    /// The key of the hashes that choose backends and ports.
    fn seed(&self) -> u64;

    /// The attachment of the packet's interface.
    fn attachment(&self) -> Option<Attachment>;
    /// The sending side of an attachment.
    fn egress(&self, slot: u32) -> Option<Egress>;
    /// An address of ours.
    fn address(&self, key: &AddressKey) -> Option<Address>;
    /// A port that a resource offers.
    fn port(&self, key: &PortKey) -> Option<Port>;
    /// The backend slot at a place of the Maglev tables.
    fn maglev(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, slot: u32) -> Option<Backend>;
    /// A source NAT address.
    fn nat_address(&self, index: u32) -> Option<NatAddress>;
    /// A connection's current generation.
    fn link(&self, slot: u32) -> Option<Link>;

    /// A flow entry of IPv4; stages ask their [`Family`](crate::Family) instead.
    fn flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>>;
    /// A flow entry of IPv6.
    fn flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>>;
    /// Inserts a flow entry of IPv4 under a key that must not exist yet in that table.
    ///
    /// # Errors
    /// [`InsertError`], nothing having changed.
    fn insert_flow_v4(
        &mut self,
        table: Table,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<(), InsertError>;
    /// The same for IPv6.
    ///
    /// # Errors
    /// [`InsertError`], nothing having changed.
    fn insert_flow_v6(
        &mut self,
        table: Table,
        key: &FlowKey<V6>,
        flow: &Flow<V6>,
    ) -> Result<(), InsertError>;
    /// Removes a flow entry of IPv4, if it is there.
    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>);
    /// Removes a flow entry of IPv6, if it is there.
    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>);

    /// Counts a packet that was not forwarded.
    fn count_drop(&mut self, reason: DropReason, link: u32);
    /// Counts a packet that crossed, with the length of its IP packet in bytes.
    fn count_crossing(&mut self, link: u32, direction: Direction, bytes: u16);
    /// Counts a flow that was opened.
    fn count_flow(&mut self, link: u32);
    /// Counts anything else.
    fn count(&mut self, statistic: Statistic);
}
