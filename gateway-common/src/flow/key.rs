//! The key of a flow entry: network, protocol, addresses and ports of arriving packets.

use bytemuck::{Pod, Zeroable};

use crate::{
    byte_order::Be32,
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
    /// Returns the key as words, of which the last are 0 in an IPv4 key.
    #[inline(always)]
    #[must_use]
    pub fn to_words(&self) -> [u64; 5] {
        let ports = u64::from(self.ports.to_wire().raw());
        let mut words = [
            u64::from(self.network_proto.to_bits()) | ports << 32,
            0,
            0,
            0,
            0,
        ];
        for index in 0..F::ADDRESS_WORDS {
            words[1 + index] = self.address_pair(index);
        }
        words
    }

    /// Returns the key with these words. The inverse of [`FlowKey::to_words`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "splits words into halves")]
    pub fn from_words(words: [u64; 5]) -> Self {
        let address = |first: usize| {
            F::address_from_words(core::array::from_fn(|word| {
                let at = first + word;
                let pair = words[1 + ((at / 2) & 3)];
                let is_low = (at & 1 == 0) == cfg!(target_endian = "little");
                (if is_low { pair } else { pair >> 32 }) as u32
            }))
        };
        Self {
            network_proto: NetworkProto::from_bits(words[0] as u32),
            source: address(0),
            destination: address(F::ADDRESS_WORDS),
            ports: PortPair::from_wire(Be32::from_raw((words[0] >> 32) as u32)),
        }
    }

    /// Returns a 64-bit word of both addresses, as loaded from eight bytes of the key behind its first word. There
    /// are as many as an address has 32-bit words.
    #[inline(always)]
    #[must_use]
    pub fn address_pair(&self, index: usize) -> u64 {
        let word = |at: usize| {
            u64::from(if at < F::ADDRESS_WORDS {
                F::address_word(self.source, at)
            } else {
                F::address_word(self.destination, at - F::ADDRESS_WORDS)
            })
        };
        if cfg!(target_endian = "little") {
            word(2 * index) | word(2 * index + 1) << 32
        } else {
            word(2 * index) << 32 | word(2 * index + 1)
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_order::Be16;

    #[test]
    fn keys_round_trip_through_words() {
        let ports = PortPair::new(Be16::new(40_000), Be16::new(443));
        let v4 = FlowKey::<V4> {
            network_proto: NetworkProto::new(7, 17),
            source: Be32::new(0x0a00_0005),
            destination: Be32::new(0x0a00_0064),
            ports,
        };
        assert_eq!(FlowKey::from_words(v4.to_words()), v4);
        let address = |text: &str| text.parse::<core::net::Ipv6Addr>().unwrap().into();
        let v6 = FlowKey::<V6> {
            network_proto: NetworkProto::new(7, 6),
            source: address("1:2:3:4:5:6:7:8"),
            destination: address("9:a:b:c:d:e:f:10"),
            ports,
        };
        assert_eq!(FlowKey::from_words(v6.to_words()), v6);
    }
}
