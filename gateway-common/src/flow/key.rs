//! The key of a flow entry: network, protocol, addresses and ports of arriving packets.

use bytemuck::{Pod, Zeroable};

use crate::{
    family::{Family, V4, V6},
    flow::NetworkProto,
    packet::PortPair,
};

/// Identifies one direction of a flow by the packets as they arrive, before any rewriting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey<F: Family> {
    /// Network that the packets arrive from, and their protocol.
    pub network_proto: NetworkProto,
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Source and destination port.
    pub ports: PortPair,
}

/// Length of a key without its two addresses.
const KEY_LEN_WITHOUT_ADDRESSES: usize = 8;

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for FlowKey<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and the assertion shows that there is no padding.
unsafe impl<F: Family> Pod for FlowKey<F> {}
const _: () = {
    assert!(size_of::<FlowKey<V4>>() == 2 * 4 + KEY_LEN_WITHOUT_ADDRESSES);
    assert!(size_of::<FlowKey<V6>>() == 2 * 16 + KEY_LEN_WITHOUT_ADDRESSES);
};

impl<F: Family> FlowKey<F> {
    /// Returns the key in the tables of IPv6, where the entries of NAT46 flows lie.
    #[inline(always)]
    #[must_use]
    pub fn to_mapped(&self) -> FlowKey<V6> {
        FlowKey {
            network_proto: self.network_proto,
            source: F::to_mapped(self.source),
            destination: F::to_mapped(self.destination),
            ports: self.ports,
        }
    }
}
