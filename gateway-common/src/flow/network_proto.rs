//! Where a flow's packets arrive and what they are, in one word.

use crate::packet::protocol;

use bytemuck::{Pod, Zeroable};

/// A network's number and the protocol: a flow's key has a word for both, for without another the entry of
/// an IPv4 flow would not fit two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct NetworkProto(u32);

/// The protocol's bit.
const UDP_BIT: u32 = 1 << 31;
/// What makes that bit of a protocol's number.
const _: () = assert!(protocol::UDP & 1 == 1 && protocol::TCP & 1 == 0);

impl NetworkProto {
    /// The largest number of a network.
    pub const MAX_NETWORK: u32 = UDP_BIT - 1;

    /// Of a network, whose number is at most [`NetworkProto::MAX_NETWORK`], and a protocol: 6 (TCP) or 17 (UDP).
    #[inline(always)]
    #[must_use]
    pub const fn new(network: u32, protocol: u8) -> Self {
        Self(network | (protocol as u32) << 31)
    }

    /// Both, as a key has them.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The network's number.
    #[inline(always)]
    #[must_use]
    pub const fn network(self) -> u32 {
        self.0 & Self::MAX_NETWORK
    }

    /// The protocol: 6 or 17.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        if self.0 & UDP_BIT == 0 {
            protocol::TCP
        } else {
            protocol::UDP
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_protocol_round_trip() {
        for network in [0, 1, NetworkProto::MAX_NETWORK] {
            for protocol in [protocol::TCP, protocol::UDP] {
                let network_proto = NetworkProto::new(network, protocol);
                assert_eq!(
                    (network_proto.network(), network_proto.protocol()),
                    (network, protocol)
                );
            }
        }
    }
}
