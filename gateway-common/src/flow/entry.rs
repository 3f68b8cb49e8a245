//! The entry of one direction of a flow.

use bytemuck::{Pod, Zeroable};

use crate::{
    byte_order::{Be16, Be32},
    checksum::{Sum, TTL_DECREMENT},
    family::{Family, V4, V6},
    flow::{CoarseTime, EntryNextHop, FlowKey, NetworkProto, StateWord},
    packet::{Mac, PackedMac, PortPair},
};

/// Number of backend slots that an entry can name.
pub const MAX_BACKEND_SLOTS: u32 = 1 << 16;

/// One direction of a flow: how its packets are rewritten and where they go.
///
/// Immutable once inserted, but for `tcp_flags_seen`, `last_seen`, `state_word`, `last_ack`, `window` and
/// `window_scale`, which are read and written through [`FlowRef`](crate::flow::FlowRef) only.
///
/// With its key and the kernel's own 56 bytes an entry of IPv4 fills two cache lines, one of IPv6 three.
///
/// A flow whose two sides are of different families is kept as one of IPv6, with IPv4-mapped
/// addresses on its IPv4 side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<F: Family> {
    /// The new source address.
    pub source: F::Address,
    /// The new destination address.
    pub destination: F::Address,
    /// The new ports.
    pub ports: PortPair,
    /// What the rewriting adds to the one's complement sum of an IPv4 header, TTL included.
    pub ip_csum_delta: u16,
    /// What it adds to the sum that TCP's and UDP's checksums cover.
    pub l4_csum_delta: u16,
    /// The network the packets go to.
    pub network: u32,
    /// The link slot of the connection.
    pub connection_slot: u32,
    /// The connection's generation when the flow was opened.
    pub generation: u32,
    /// To the consumer: the attachment slot that packets leave by. To the service: that of the backend
    /// when the flow was opened; the backend's own is what counts.
    pub egress_slot: u16,
    /// The next hop of the packets, by direction.
    pub next_hop: EntryNextHop,
    /// A word of state, by direction and table.
    pub state_word: StateWord,
    /// When the last packet passed, in ticks.
    pub last_seen: u32,
    /// TCP: the newest acknowledgement number seen in this direction.
    pub last_ack: Be32,
    /// TCP: the window that came with it, as it is in the header.
    pub window: Be16,
    /// TCP: by how many bits this direction's windows are shifted (RFC 7323).
    pub window_scale: u8,
    /// TCP flags seen in this direction: [`TcpFlagsSeen`](crate::flow::TcpFlagsSeen).
    pub tcp_flags_seen: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// [`Flow::NAT46`], or 0.
    pub flags: u8,
    /// The backend's slot.
    pub backend_slot: u16,
}

/// Bytes of an entry beside its two addresses.
const FLOW_LEN_WITHOUT_ADDRESSES: usize = 48;

/// Which way a flow entry's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the consumer to the service.
    ToService = 0,
    /// From the service back to the consumer.
    ToConsumer = 1,
}

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for Flow<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and the assertion shows that there is no padding.
unsafe impl<F: Family> Pod for Flow<F> {}
const _: () = {
    assert!(size_of::<Flow<V4>>() == 2 * 4 + FLOW_LEN_WITHOUT_ADDRESSES);
    assert!(size_of::<Flow<V6>>() == 2 * 16 + FLOW_LEN_WITHOUT_ADDRESSES);
};

impl<F: Family> Flow<F> {
    /// Its packets leave in the other family than they arrive in.
    pub const NAT46: u8 = 1;

    /// Whether its packets leave in the other family.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat46(&self) -> bool {
        self.flags & Self::NAT46 != 0
    }

    /// Which way the entry's packets go.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.direction == Direction::ToService as u8 {
            Direction::ToService
        } else {
            Direction::ToConsumer
        }
    }

    /// The backend that packets to the service go to: its slot, and its generation when the flow was
    /// opened.
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> (u32, u32) {
        self.next_hop.as_backend()
    }

    /// Sets the backend that [`Flow::backend`] returns. There are no more slots than fit 16 bits.
    #[inline(always)]
    pub const fn set_backend(&mut self, slot: u32, generation: u32) {
        self.next_hop = EntryNextHop::backend(slot, generation);
    }

    /// Returns the backend whose packets an established entry towards the consumer carries: its slot,
    /// and its generation when the flow was opened.
    #[inline(always)]
    #[must_use]
    pub const fn reply_backend(&self) -> (u32, u32) {
        (
            self.backend_slot as u32,
            self.state_word.as_backend_generation(),
        )
    }

    /// Sets the backend that [`Flow::reply_backend`] returns. There are no more slots than fit 16 bits.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "slots fit")]
    pub const fn set_reply_backend(&mut self, (slot, generation): (u32, u32)) {
        self.backend_slot = slot as u16;
        self.state_word = StateWord::backend_generation(generation);
    }

    /// Returns the MAC address that packets to the consumer are sent to.
    #[inline(always)]
    #[must_use]
    pub const fn consumer_mac(&self) -> PackedMac {
        self.next_hop.as_consumer()
    }

    /// Sets the MAC address that [`Flow::consumer_mac`] returns.
    #[inline(always)]
    pub const fn set_consumer_mac(&mut self, mac: Mac) {
        self.next_hop = EntryNextHop::consumer(mac);
    }

    /// When the flow was opened; only the entry towards the service knows.
    #[inline(always)]
    #[must_use]
    pub const fn created_at(&self) -> CoarseTime {
        self.state_word.as_created_at()
    }

    /// Computes the checksum deltas: from packets as they arrive under `key` to packets as they
    /// leave by this entry.
    #[inline(always)]
    pub fn compute_checksum_deltas(&mut self, key: &FlowKey<F>) {
        let addresses = F::replace_in_sum(Sum::ZERO, key.source, self.source);
        let addresses = F::replace_in_sum(addresses, key.destination, self.destination);
        self.ip_csum_delta = addresses.add_word(TTL_DECREMENT).fold();
        self.l4_csum_delta = addresses
            .replace32(key.ports.to_wire(), self.ports.to_wire())
            .fold();
    }

    /// The key of the other direction, given this one's protocol: its packets arrive from where
    /// these go to, with the rewritten addresses swapped.
    #[inline(always)]
    #[must_use]
    pub const fn reverse_key(&self, protocol: u8) -> FlowKey<F> {
        FlowKey {
            network_proto: NetworkProto::new(self.network, protocol),
            source: self.destination,
            destination: self.source,
            ports: self.ports.swapped(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_order::Be16;

    #[test]
    fn next_hop_holds_a_backend_or_a_mac_address() {
        let mut flow = Flow::<V6>::default();
        flow.set_backend(65_535, 0x1234_5678);
        assert_eq!(flow.backend(), (65_535, 0x1234_5678));
        let mac = Mac::new([2, 3, 4, 5, 6, 7]);
        flow.set_consumer_mac(mac);
        assert_eq!(flow.consumer_mac().mac(), mac);
        flow.set_reply_backend((65_535, 0x8765_4321));
        assert_eq!(flow.reply_backend(), (65_535, 0x8765_4321));
    }

    #[test]
    fn reverse_keys_match_in_both_directions() {
        let forward_key = FlowKey::<V4> {
            network_proto: NetworkProto::new(1, 6),
            source: Be32::new(0x0a00_0005),
            destination: Be32::new(0x0a00_0064),
            ports: PortPair::new(Be16::new(40_000), Be16::new(443)),
        };
        let forward = Flow::<V4> {
            source: Be32::new(0x0a01_0064),
            destination: Be32::new(0x0a01_000a),
            ports: PortPair::new(Be16::new(2_000), Be16::new(8_443)),
            network: 2,
            ..Flow::default()
        };
        let reverse = Flow::<V4> {
            source: forward_key.destination,
            destination: forward_key.source,
            ports: forward_key.ports.swapped(),
            network: 1,
            ..Flow::default()
        };
        assert_eq!(reverse.reverse_key(6), forward_key);
        assert_eq!(forward.reverse_key(6).network_proto.network(), 2);
        assert_eq!(forward.reverse_key(6).source, forward.destination);
    }
}
