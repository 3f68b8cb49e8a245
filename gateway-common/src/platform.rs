//! The platform that the stages run on: the kernel's XDP program, or a simulation in userspace.

use core::ptr::NonNull;

use crate::{
    family::{Family, V4, V6},
    flow::{CoarseTime, FlowTables},
    maps::{
        AddressKey, ConfigMaps, ConnectionUsage, Counters, IdentificationSpace, IdentificationState,
    },
    packet::{Mac, PacketBuffer},
    subprogram::{Exit, Subprogram},
};

/// The body of a bounded loop.
pub trait LoopBody<E> {
    /// Runs one iteration. Returns whether it was the last.
    fn iterate(&mut self, env: &mut E, iteration: u32) -> bool;
}

/// Working memory of one packet, beside the flow entry that it builds.
pub type Scratch = [u64; 16];

/// Everything that the stages use beside their own code.
pub trait Platform: PacketBuffer + FlowTables<V4> + FlowTables<V6> + ConfigMaps + Counters {
    /// Runs [`pipeline::run_subprogram`](crate::pipeline::run_subprogram). In the kernel it runs as a function
    /// that the verifier checks by itself.
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> Exit;

    /// Runs the body until it returns true, at most `times` times.
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C)
    where
        Self: Sized;

    /// Runs [`pipeline::parse_syn_options`](crate::pipeline::parse_syn_options). In the kernel it runs as a
    /// function that the verifier checks by itself.
    fn parse_syn_options(&mut self, start: u16, length: u16) -> u32;

    /// Runs [`pipeline::allocate_identification`](crate::pipeline::allocate_identification). In the kernel it
    /// runs as a function that the verifier checks by itself.
    fn allocate_identification(&self, space: IdentificationSpace, bucket: u32) -> u64;

    /// Returns `value` unchanged. In the kernel the verifier loses its range, so that states which were
    /// reached through different branches can be pruned.
    fn forget_bounds(&mut self, value: u16) -> u16;

    /// Returns working memory. It belongs to this packet alone and holds arbitrary bytes.
    fn scratch(&mut self) -> Option<NonNull<Scratch>>;

    /// Returns the time.
    fn now(&self) -> CoarseTime;

    /// Returns the time in nanoseconds since the machine started.
    fn now_nanoseconds(&self) -> u64;

    /// Returns the usage of a connection. Other CPUs write it too: fields are loaded and stored whole, and
    /// added to by [`Platform::atomic_add`].
    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>>;

    /// Returns the allocation state of a bucket of identifications. Other CPUs write it too: fields are loaded
    /// whole and written by [`Platform::compare_exchange`].
    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>>;

    /// Records that another host claims a local address.
    fn record_conflict(&mut self, key: &AddressKey, mac: Mac);

    /// Adds to a number atomically, wrapping around.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written only by atomic operations and whole
    /// stores.
    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64);

    /// Replaces a number by `new` atomically if it is `current`. Returns what the number was.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written only by atomic operations.
    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64;
}

/// A [`Platform`], with the flow tables of a family by name: `E: PlatformFor<A>` lets a stage that is generic
/// over the family `A` use its tables.
pub trait PlatformFor<F: Family>: Platform + FlowTables<F> {}

impl<F: Family, E: Platform + FlowTables<F>> PlatformFor<F> for E {}
