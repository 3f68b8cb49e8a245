//! Where a flow's packets arrive and what they are, in one word.

use bytemuck::{Pod, Zeroable};

use crate::packet::protocol;

/// A network's number and the protocol: a flow's key has a word for both, for without another the entry of
/// an IPv4 flow would not fit two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct Realm(u32);

/// The protocol's bit.
const UDP: u32 = 1 << 31;
/// What makes that bit of a protocol's number.
const _: () = assert!(protocol::UDP & 1 == 1 && protocol::TCP & 1 == 0);

impl Realm {
    /// The largest number of a network.
    pub const MOST: u32 = UDP - 1;

    /// Of a network, whose number is at most [`Realm::MOST`], and a protocol: 6 (TCP) or 17 (UDP).
    #[inline(always)]
    #[must_use]
    pub const fn new(network: u32, protocol: u8) -> Self {
        Self(network | (protocol as u32) << 31)
    }

    /// Both, as a key has them.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The network's number.
    #[inline(always)]
    #[must_use]
    pub const fn network(self) -> u32 {
        self.0 & Self::MOST
    }

    /// The protocol: 6 or 17.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        if self.0 & UDP == 0 {
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
    fn a_word_holds_both() {
        for network in [0, 1, Realm::MOST] {
            for protocol in [protocol::TCP, protocol::UDP] {
                let realm = Realm::new(network, protocol);
                assert_eq!((realm.network(), realm.protocol()), (network, protocol));
            }
        }
    }
}
