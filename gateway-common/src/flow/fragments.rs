//! Fragmented datagrams: only the first fragment has ports, so they are recorded for the later fragments.

use crate::{
    byte_order::Be16,
    family::{Family, V4, V6},
};

use bytemuck::{Pod, Zeroable};

/// Identifies a datagram that arrives in fragments (RFC 791; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct DatagramKey<F: Family> {
    /// Network that the fragments arrive from.
    pub network: u32,
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Identification, as loaded.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for DatagramKey<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and the assertion shows that there is no padding.
unsafe impl<F: Family> Pod for DatagramKey<F> {}
const _: () = {
    assert!(size_of::<DatagramKey<V4>>() == 12 + 2 * 4);
    assert!(size_of::<DatagramKey<V6>>() == 12 + 2 * 16);
};

/// State of a datagram whose first fragment was forwarded or answered. Later fragments carry neither the ports nor
/// the identification that the first fragment left with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentRecord {
    /// Source port, or 0 for an echo request.
    pub source: Be16,
    /// Destination port, or 0 for an echo request.
    pub destination: Be16,
    /// Coarse time at which the first fragment arrived.
    pub first_seen: u32,
    /// Identification that the fragments leave with, in host byte order.
    pub id: u32,
    /// Hash of the network, addresses and protocol that the fragments leave with. The identification is unique only
    /// among datagrams with the same hash.
    pub address_hash: u32,
}
