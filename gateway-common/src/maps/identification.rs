//! Allocation state of identifications, which the pipeline's stage `forward::identification` uses.

use bytemuck::{Pod, Zeroable};

/// Number of entries in `IDENTIFICATIONS`.
pub const IDENTIFICATION_BUCKETS: u32 = 65_536;

/// Allocation state of one bucket of identifications: of datagrams that leave with the same addresses and protocol,
/// or with ones that share the bucket. All CPUs write it, by compare-and-exchange only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IdentificationState {
    /// IPv4 fragments: the next number in the lower 16 bits, and above them the time up to which numbers are spent, in
    /// units of 2^21 nanoseconds.
    pub fragments_v4: u64,
    /// IPv4 packets that a router may fragment: how many numbers were allocated.
    pub unfragmented_v4: u64,
    /// IPv6 fragments: how many numbers were allocated.
    pub fragments_v6: u64,
}

/// A set of identifications that is allocated independently of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IdentificationSpace {
    /// IPv4 fragments. A number is not allocated while a receiver may hold fragments with it.
    FragmentsV4,
    /// IPv4 packets that a router may fragment.
    UnfragmentedV4,
    /// IPv6 fragments.
    FragmentsV6,
}
