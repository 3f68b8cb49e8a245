//! The platform: the data path's interface to its surroundings.
//!
//! The stages of the [`pipeline`](crate::pipeline) reach packet memory, maps, clocks and BPF helpers only through
//! [`Platform`]. There are two implementations: the XDP program in `gateway-ebpf`, and the simulation in `sim`.
//!
//! ```text
//!                         stages
//!                           │
//!   Platform: subprograms, loops, clock, shared counters
//!     ├── PacketBuffer    bounds-checked bytes, resizing, partial checksums
//!     ├── FlowTables<V4>  flow entries and fragment records of IPv4
//!     ├── FlowTables<V6>  flow entries and fragment records of IPv6
//!     ├── ConfigMaps      the configuration that the agent writes
//!     └── Counters        drops, connections, statistics
//! ```
//!
//! Several methods exist for the verifier: they let a piece of code run as a BPF global function, which the verifier
//! checks once and not on each path to each call, or they hide a value's range from it.

use core::ptr::NonNull;

use crate::{
    family::{Family, V4, V6},
    flow::{CoarseTime, FlowTables},
    maps::{
        AddressKey, ConfigMaps, ConnectionUsage, Counters, IdentificationSpace,
        IdentificationState, RejectMeters,
    },
    packet::{Mac, PacketBuffer},
    subprogram::{Exit, Subprogram},
};

/// Working memory of one packet, beside the flow entry under construction.
pub type Scratch = [u64; 16];

/// The data path's interface to its surroundings.
pub trait Platform: PacketBuffer + FlowTables<V4> + FlowTables<V6> + ConfigMaps + Counters {
    /// Runs [`pipeline::run_subprogram`](crate::pipeline::run_subprogram). In the kernel it is a BPF global
    /// function, which the verifier checks by itself.
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> Exit;

    /// Runs [`pipeline::parse_syn_options`](crate::pipeline::parse_syn_options). In the kernel it is a BPF global
    /// function, which the verifier checks by itself.
    fn parse_syn_options(&mut self, start: u16, length: u16) -> u32;

    /// Runs [`pipeline::allocate_identification`](crate::pipeline::allocate_identification). In the kernel it is a
    /// BPF global function, which the verifier checks by itself.
    fn allocate_identification(&self, space: IdentificationSpace, bucket: u32) -> u64;

    /// Returns `value` unchanged, but hides its range from the verifier, so that states reached through different
    /// branches can be pruned.
    fn forget_bounds(&mut self, value: u16) -> u16;

    /// Returns working memory. It belongs to the current packet alone and holds arbitrary bytes.
    fn scratch(&mut self) -> Option<NonNull<Scratch>>;

    /// Returns the time, in the unit of flow entries.
    fn now(&self) -> CoarseTime;

    /// Returns what [`Platform::now`] does, at a lower cost where it is called often.
    fn cached_now(&self) -> CoarseTime;

    /// Returns the time in nanoseconds since the machine started.
    fn now_nanoseconds(&self) -> u64;

    /// Returns the usage of a connection. Other CPUs write it too: load and store its fields whole, and add to them
    /// with [`Platform::atomic_add`].
    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>>;

    /// Returns the meters of a reject budget: see [`reject_meters_index`](crate::maps::reject_meters_index). Other CPUs
    /// write them too, as in [`Platform::usage`].
    fn reject_meters(&self, index: u32) -> Option<NonNull<RejectMeters>>;

    /// Returns the allocation state of a bucket of identifications. Other CPUs write it too: load its fields whole
    /// and write them with [`Platform::compare_exchange`].
    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>>;

    /// Records that the host with this MAC address claims a local address, or only probes for it.
    fn record_conflict(&mut self, key: &AddressKey, mac: Mac, is_probe: bool);

    /// Adds to a number atomically. The sum wraps around.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written only by atomic operations and whole stores.
    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64);

    /// Replaces a number by `new` atomically if it equals `current`. Returns the number's previous value.
    ///
    /// # Safety
    /// `number` is in bounds of live memory, aligned, and written only by atomic operations.
    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64;
}

/// A [`Platform`], with the flow tables of a family by name. The bound `E: PlatformFor<A>` lets a stage that is
/// generic over the family `A` use that family's tables.
pub trait PlatformFor<F: Family>: Platform + FlowTables<F> {}

impl<F: Family, E: Platform + FlowTables<F>> PlatformFor<F> for E {}
