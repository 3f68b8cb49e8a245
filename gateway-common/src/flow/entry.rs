//! The flow entry: one direction of a flow.

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

/// One direction of a flow: the rewriting of its packets and their next hop.
///
/// All fields are immutable once the entry is inserted, except `tcp_flags_seen`, `last_seen`, `state_word`,
/// `last_ack`, `window` and `window_scale`. Those are read and written only through
/// [`FlowRef`](crate::flow::FlowRef), since other CPUs do so at the same time.
///
/// With its key and the kernel's own 56 bytes an IPv4 entry fills two cache lines, and an IPv6 entry three.
///
/// A NAT46 flow, whose two sides are of different families, lies in the tables of IPv6, with IPv4-mapped addresses
/// on its IPv4 side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<F: Family> {
    /// Source address after the rewriting.
    pub source: F::Address,
    /// Destination address after the rewriting.
    pub destination: F::Address,
    /// Ports after the rewriting.
    pub ports: PortPair,
    /// Checksum delta of an IPv4 header: the addresses and the TTL decrement.
    pub ip_csum_delta: u16,
    /// Checksum delta of TCP and UDP: the addresses of the pseudo header, and the ports.
    pub l4_csum_delta: u16,
    /// Network that the packets leave to.
    pub network: u32,
    /// Connection slot.
    pub connection_slot: u32,
    /// Generation of the connection when the flow was opened.
    pub generation: u32,
    /// Egress slot. Towards the consumer: of the interface that packets leave by. Towards the service: of the
    /// backend when the flow was opened, for information only; packets leave by the backend's present egress slot.
    pub egress_slot: u16,
    /// Next hop of the packets. The meaning depends on the direction.
    pub next_hop: EntryNextHop,
    /// Word of state. The meaning depends on direction and table.
    pub state_word: StateWord,
    /// Coarse time of the last packet.
    pub last_seen: u32,
    /// TCP: newest acknowledgement number seen in this direction.
    pub last_ack: Be32,
    /// TCP: window of that segment, as in its header.
    pub window: Be16,
    /// TCP: window scale of this direction, in bits (RFC 7323).
    pub window_scale: u8,
    /// TCP flags seen in this direction: [`TcpFlagsSeen`](crate::flow::TcpFlagsSeen).
    pub tcp_flags_seen: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// [`Flow::NAT46`], or 0.
    pub flags: u8,
    /// Backend slot.
    pub backend_slot: u16,
}

/// Length of an entry without its two addresses.
const FLOW_LEN_WITHOUT_ADDRESSES: usize = 48;

/// Direction of a flow entry's packets.
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
    /// Flag of a NAT46 flow: packets leave in the other address family than they arrive in.
    pub const NAT46: u8 = 1;

    /// Returns true if packets leave in the other address family than they arrive in.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat46(&self) -> bool {
        self.flags & Self::NAT46 != 0
    }

    /// Returns the direction of the entry's packets.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.direction == Direction::ToService as u8 {
            Direction::ToService
        } else {
            Direction::ToConsumer
        }
    }

    /// Returns the backend of an entry towards the service: its slot, and its generation when the flow was opened.
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> (u32, u32) {
        self.next_hop.as_backend()
    }

    /// Sets the backend that [`Flow::backend`] returns. Every slot fits 16 bits.
    #[inline(always)]
    pub const fn set_backend(&mut self, slot: u32, generation: u32) {
        self.next_hop = EntryNextHop::backend(slot, generation);
    }

    /// Returns the backend that an established entry towards the consumer accepts packets of: its slot, and its
    /// generation when the flow was opened.
    #[inline(always)]
    #[must_use]
    pub const fn reply_backend(&self) -> (u32, u32) {
        (
            self.backend_slot as u32,
            self.state_word.as_backend_generation(),
        )
    }

    /// Sets the backend that [`Flow::reply_backend`] returns. Every slot fits 16 bits.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "slots have 16 bits")]
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

    /// Returns the coarse time at which the flow was opened. Valid only for an entry towards the service.
    #[inline(always)]
    #[must_use]
    pub const fn created_at(&self) -> CoarseTime {
        self.state_word.as_created_at()
    }

    /// Computes the checksum deltas, from packets as they arrive under `key` to packets as they leave by this entry.
    #[inline(always)]
    pub fn compute_checksum_deltas(&mut self, key: &FlowKey<F>) {
        let addresses = F::replace_in_sum(Sum::ZERO, key.source, self.source);
        let addresses = F::replace_in_sum(addresses, key.destination, self.destination);
        self.ip_csum_delta = addresses.add_word(TTL_DECREMENT).fold();
        self.l4_csum_delta = addresses
            .replace32(key.ports.to_wire(), self.ports.to_wire())
            .fold();
    }

    /// Returns the flow key of the other direction, given the protocol. Packets of that direction arrive from the
    /// network that packets of this one leave to, with the rewritten addresses and ports swapped.
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
