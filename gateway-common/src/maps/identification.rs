//! Allocation state of identifications.

use bytemuck::{Pod, Zeroable};

/// Places in `IDENTIFICATIONS`.
pub const IDENTIFICATION_BUCKETS: u32 = 65_536;

/// Allocation state of the identifications of datagrams that leave with the same addresses and
/// protocol, or with ones that share the bucket. Written by all CPUs, by compare and exchange only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IdentificationState {
    /// IPv4 fragments: the next number in the lower 16 bits; above them the time up to which numbers
    /// are spent, in units of 2^21 nanoseconds.
    pub fragments_v4: u64,
    /// IPv4 packets that a router may fragment: how many numbers were allocated.
    pub unfragmented_v4: u64,
    /// IPv6 fragments: how many numbers were allocated.
    pub fragments_v6: u64,
}

/// Identifications that are allocated independently of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IdentificationSpace {
    /// IPv4 fragments. None is allocated while a receiver may hold fragments with each.
    FragmentsV4,
    /// IPv4 packets that a router may fragment.
    UnfragmentedV4,
    /// IPv6 fragments.
    FragmentsV6,
}
