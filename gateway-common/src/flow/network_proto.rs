//! The network and the protocol of a flow's packets, in one word.

use crate::packet::protocol;

use bytemuck::{Pod, Zeroable};

/// A network number and a protocol in one word.
///
/// The network takes 31 bits and the protocol one. With a word for each, an IPv4 entry and its key would exceed two
/// cache lines.
///
/// # Examples
///
/// ```
/// use gateway_common::{flow::NetworkProto, packet::protocol};
///
/// let tcp = NetworkProto::new(7, protocol::TCP);
/// let udp = NetworkProto::new(7, protocol::UDP);
/// assert_ne!(tcp, udp);
/// assert_eq!((udp.network(), udp.protocol()), (7, 17));
/// assert_eq!(tcp.to_bits(), 7);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct NetworkProto(u32);

/// The bit that distinguishes UDP from TCP.
const UDP_BIT: u32 = 1 << 31;
/// The lowest bit of the protocol number is that bit: 17 is odd and 6 is even.
const _: () = assert!(protocol::UDP & 1 == 1 && protocol::TCP & 1 == 0);

impl NetworkProto {
    /// The largest network number.
    pub const MAX_NETWORK: u32 = UDP_BIT - 1;

    /// Returns the word for a network, at most [`NetworkProto::MAX_NETWORK`], and a protocol: 6 (TCP) or 17 (UDP).
    #[inline(always)]
    #[must_use]
    pub const fn new(network: u32, protocol: u8) -> Self {
        Self(network | (protocol as u32) << 31)
    }

    /// Wraps a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns the word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the network number.
    #[inline(always)]
    #[must_use]
    pub const fn network(self) -> u32 {
        self.0 & Self::MAX_NETWORK
    }

    /// Returns the protocol number: 6 or 17.
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
