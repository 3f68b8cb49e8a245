//! What differs between the kernel and a native run: packet memory, maps, clock.

use core::{ops::Deref, ptr::NonNull};

use crate::{
    checksum::Sum,
    drop_reason::DropReason,
    family::{V4, V6},
    flow::{CoarseTime, Direction, Flow, FlowKey, FlowRef, Table},
    maps::{
        AddressKey, Attachment, Backend, Connection, ConnectionUsage, DatagramKey, Egress,
        FragmentRecord, IdentificationSpace, IdentificationState, Limits, LocalAddress, NatAddress,
        Port, PortKey, Statistic,
    },
    packet::Mac,
    pipeline::Subprogram,
};

/// Why a flow entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The key is taken.
    Exists,
    /// The table has no room.
    Full,
}

/// Something that is tried again and again.
pub trait LoopBody<E> {
    /// The try with this number; says whether it was the last.
    fn iterate(&mut self, env: &mut E, iteration: u32) -> bool;
}

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

/// Memory for what is worked on, this packet's alone.
pub type Scratch = [u64; 16];

/// The world a packet is processed in.
///
/// Values are returned by copy where they are small, so that a stage works on one consistent
/// reading; flow entries by reference, since their changing fields are written in place.
pub trait Platform {
    /// The interface that the packet came in by.
    fn ifindex(&self) -> u32;

    /// The frame's length in bytes.
    fn frame_len(&self) -> usize;

    /// Whether the frame has at least so many bytes.
    fn has_len(&self, length: usize) -> bool;

    /// A pointer to `length` bytes of the frame at `offset`; none if the frame ends before.
    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>>;

    /// Makes the frame `length` bytes long, cutting it or adding zeros, and says whether that was
    /// possible. All windows taken before are void afterwards.
    fn resize(&mut self, length: usize) -> bool;

    /// Moves the frame's beginning by so many bytes, forwards (negative: there is more room in
    /// front, with anything in it) or backwards, and says whether that was possible. All windows
    /// taken before are void afterwards.
    fn adjust_head(&mut self, delta: i32) -> bool;

    /// The one's complement sum over `length` bytes of the frame at `offset`; none if the frame
    /// ends before or the length is beyond what can be summed.
    fn partial_checksum(&mut self, offset: usize, length: usize) -> Option<Sum>;

    /// Runs a part of the way; see [`pipeline::run`](crate::pipeline::run), which is what it does. In the
    /// kernel, within a function of its own.
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> u64;

    /// Tries until it is done, but no more than so many times.
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C)
    where
        Self: Sized;

    /// Reads the options of a SYN, likewise; see [`pipeline::syn_options`](crate::pipeline::syn_options).
    fn parse_syn_options(&mut self, start: u16, length: u16) -> u32;

    /// Allocates an identification, likewise; see [`pipeline::allocate`](crate::pipeline::allocate).
    fn allocate_identification(&self, space: IdentificationSpace, bucket: u32) -> u64;

    /// The value itself. In the kernel it comes back as one of which nothing is known but its
    /// type, so that the verifier goes on once and not once for each way it may have come about.
    fn forget_bounds(&mut self, value: u16) -> u16;

    /// Memory to build a flow entry of IPv4 in, this packet's alone; stages ask their
    /// [`Family`](crate::Family). What is in it is left from before.
    fn flow_scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>>;
    /// The same for IPv6.
    fn flow_scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>>;

    /// Memory for something else; what is in it is left from before.
    fn scratch(&mut self) -> Option<NonNull<Scratch>>;

    /// The time.
    fn now(&self) -> CoarseTime;

    /// The time, in nanoseconds since the machine started.
    fn now_nanoseconds(&self) -> u64;

    /// Nanoseconds that a refusal costs (see [`Limits`]); 0 is no limit.
    fn reject_cost(&self) -> u64;

    /// The key of the hashes that choose backends and ports.
    fn hash_seed(&self) -> u64;

    /// The attachment of the packet's interface.
    fn attachment(&self) -> Option<Attachment>;
    /// The sending side of an attachment.
    fn egress(&self, slot: u32) -> Option<Egress>;
    /// An address of ours.
    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress>;
    /// A port that a resource offers. By reference: entries are replaced whole, so it is consistent.
    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>>;
    /// The backend slot at a place of the Maglev tables.
    fn maglev(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, slot: u32) -> Option<Backend>;
    /// A source NAT address.
    fn nat_address(&self, index: u32) -> Option<NatAddress>;
    /// A connection's current generation.
    fn connection(&self, slot: u32) -> Option<Connection>;

    /// What a connection may use.
    fn limits(&self, slot: u32) -> Option<Limits>;
    /// What a connection uses: shared with other CPUs, so its fields are loaded and stored whole,
    /// and added to by [`Environment::add`].
    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>>;
    /// Adds to a number that other CPUs add to as well, wrapping around, in one step.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written by nothing but such steps and
    /// whole stores.
    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64);

    /// Replaces a number by `new` if it is `current`, in one step. Returns what the number was.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written by nothing but such steps.
    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64;

    /// Allocation state of identifications, by bucket: shared with other CPUs, so its fields are
    /// loaded whole and written by [`Environment::compare_exchange`].
    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>>;

    /// The ports of a datagram that came in fragments.
    fn fragment_record_v4(&self, key: &DatagramKey<V4>) -> Option<FragmentRecord>;
    /// The same of IPv6.
    fn fragment_record_v6(&self, key: &DatagramKey<V6>) -> Option<FragmentRecord>;
    /// Notes them for the fragments that follow. The least recently used makes room.
    fn record_fragment_v4(&mut self, key: &DatagramKey<V4>, record: &FragmentRecord);
    /// The same of IPv6.
    fn record_fragment_v6(&mut self, key: &DatagramKey<V6>, record: &FragmentRecord);
    /// Notes that another station uses an address of ours.
    fn record_conflict(&mut self, key: &AddressKey, mac: Mac);

    /// A flow entry of IPv4; stages ask their [`Family`](crate::Family) instead.
    fn lookup_flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>>;
    /// A flow entry of IPv6.
    fn lookup_flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>>;
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
    fn count_drop(&mut self, reason: DropReason, connection_slot: u32);
    /// Counts a packet that crossed, with the length of its IP packet in bytes.
    fn count_forwarded(&mut self, connection_slot: u32, direction: Direction, bytes: u16);
    /// Counts a flow that was opened.
    fn count_flow_opened(&mut self, connection_slot: u32);
    /// Counts anything else.
    fn count(&mut self, statistic: Statistic);
}
