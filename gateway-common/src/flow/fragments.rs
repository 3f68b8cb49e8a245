//! Datagrams that arrive in fragments.

use crate::{
    byte_order::Be16,
    family::{Family, V4, V6},
};

use bytemuck::{Pod, Zeroable};

/// A datagram that came in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct DatagramKey<F: Family> {
    /// The network that it came from.
    pub network: u32,
    /// Its source.
    pub source: F::Address,
    /// Its destination.
    pub destination: F::Address,
    /// Its identification, as loaded.
    pub id: u32,
    /// Its protocol.
    pub protocol: u32,
}

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for DatagramKey<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and the assertion shows that nothing is between.
unsafe impl<F: Family> Pod for DatagramKey<F> {}
const _: () = {
    assert!(size_of::<DatagramKey<V4>>() == 12 + 2 * 4);
    assert!(size_of::<DatagramKey<V6>>() == 12 + 2 * 16);
};

/// State of a datagram whose first fragment was forwarded or answered: later fragments carry neither
/// ports nor the identification that the first one left with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentRecord {
    /// The source port; of an echo request: 0.
    pub source: Be16,
    /// The destination port; of an echo request: 0.
    pub destination: Be16,
    /// When the first fragment came, in ticks.
    pub first_seen: u32,
    /// Identification that the fragments leave with, in host byte order.
    pub id: u32,
    /// Hash of the network, addresses and protocol that the fragments leave with. The identification
    /// is unique among datagrams with the same hash only.
    pub address_hash: u32,
}
