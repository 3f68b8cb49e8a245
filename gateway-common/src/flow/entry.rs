//! The flow entry: one direction of a flow, in one cache line (IPv6: two).

use bytemuck::{AnyBitPattern, Pod, Zeroable};

use crate::{
    byte_order::Be32,
    checksum::{Sum, TTL_DECREMENT},
    family::{Family, V4, V6},
    flow::{
        CoarseTime, Control, FlowKey, ReturnPath,
        return_path::{NAT46, TO_CONSUMER},
    },
    packet::{Mac, PackedMac, PortPair},
};

/// Number of backend slots that an entry can name.
pub const MAX_BACKEND_SLOTS: u32 = 1 << 16;
/// Number of connection slots that an entry can name.
pub const MAX_CONNECTION_SLOTS: u32 = 1 << 24;
/// Number of egress slots that an entry can name.
pub const MAX_EGRESS_SLOTS: u32 = 1 << 14;

/// Index of the other direction's entry before that is inserted.
pub const NO_PEER: u32 = u32::MAX;

/// Number of places in a bucket of the flow table.
pub const WAYS: u32 = 4;

/// A bucket of the flow table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bucket<F: Family> {
    /// Places, each in cache lines of its own.
    pub places: [FlowEntry<F>; WAYS as usize],
}

/// A place of the flow table, with the entry that it holds.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct FlowEntry<F: Family> {
    /// State and version of the place.
    pub control: Control,
    /// Key of arriving packets.
    pub key: FlowKey<F>,
    /// Rewriting and next hop of the packets.
    pub flow: Flow<F>,
}

// SAFETY: integers only, for which all zeros is a value.
unsafe impl<F: Family> Zeroable for Bucket<F> {}
// SAFETY: integers only, for which all bytes are a value. Padding behind an entry is never read.
unsafe impl<F: Family> AnyBitPattern for Bucket<F> {}

/// One direction of a flow: the rewriting of its packets and their next hop.
///
/// All fields are immutable once the entry is visible, except `peer`, `last_seen_and_scale`, `last_ack`, `window` and
/// the [`ReturnPath`]. Those are read and written only through [`FlowRef`](crate::flow::FlowRef), since other CPUs do so
/// at the same time. The flags beside the return path are immutable.
///
/// A NAT46 flow, whose two sides are of different families, lies in the table of IPv6, with IPv4-mapped addresses on
/// its IPv4 side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<F: Family> {
    /// Source address after the rewriting.
    pub source: F::Address,
    /// Destination address after the rewriting.
    pub destination: F::Address,
    /// Ports after the rewriting.
    pub ports: PortPair,
    /// Index of the other direction's entry.
    pub peer: u32,
    /// Coarse time of the last packet in the lower 28 bits (nine years), and the TCP window scale of this direction in
    /// bits (RFC 7323) above.
    pub last_seen_and_scale: u32,
    /// TCP: newest acknowledgement number seen in this direction. While the entry is `FinUnacked`: the number that
    /// acknowledges the other direction's FIN. While the flow is half-open: in the entry towards the consumer, the
    /// number that acknowledges the backend's first SYN; in the entry towards the service, the one that acknowledges
    /// everything that the backend has sent since its last SYN.
    pub last_ack: Be32,
    /// Lower 16 bits of the connection slot.
    pub connection_slot_low: u16,
    /// Upper 8 bits of the connection slot.
    pub connection_slot_high: u8,
    /// TCP: window of the newest segment, in units of 256 of the header's field, rounded down.
    pub window: u8,
    /// Lower 16 bits of the connection's generation when the flow was opened.
    pub connection_generation: u16,
    /// Lower 16 bits of the backend's generation when the flow was opened.
    pub backend_generation: u16,
    /// Backend slot.
    pub backend_slot: u16,
    /// Checksum delta of TCP and UDP: the addresses of the pseudo header, and the ports.
    pub l4_csum_delta: u16,
    /// Slot of the attachment by which the consumer is reached, `TO_CONSUMER` and `NAT46`. Together with the next field
    /// it is the [`ReturnPath`], one aligned word.
    pub egress_and_flags: u16,
    /// Towards the consumer: MAC address that packets are sent to. Towards the service: digest of the MAC address that
    /// packets come from, and time of creation.
    pub mac_or_created_at: [u16; 3],
}

/// Length of an entry without its addresses.
const FLOW_LEN_WITHOUT_ADDRESSES: usize = 36;

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
    assert!(size_of::<FlowEntry<V4>>() == 64);
    assert!(size_of::<FlowEntry<V6>>() == 128);
    assert!(core::mem::offset_of!(FlowEntry<V4>, key) == 4);
    assert!(core::mem::offset_of!(FlowEntry<V6>, key) == 4);
    // The return path is an aligned word.
    assert!(core::mem::offset_of!(FlowEntry<V4>, flow.egress_and_flags) == 56);
    assert!(core::mem::offset_of!(FlowEntry<V6>, flow.egress_and_flags) == 104);
    assert!(core::mem::offset_of!(Flow<V4>, mac_or_created_at) == 38);
};

const SCALE_SHIFT: u32 = 28;
const LAST_SEEN_MASK: u32 = (1 << SCALE_SHIFT) - 1;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the parts of a word, and slots within their limits"
)]
impl<F: Family> Flow<F> {
    /// Returns true if packets leave in the other address family than they arrive in.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat46(&self) -> bool {
        self.egress_and_flags & NAT46 != 0
    }

    /// Returns the direction of the entry's packets.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.egress_and_flags & TO_CONSUMER == 0 {
            Direction::ToService
        } else {
            Direction::ToConsumer
        }
    }

    /// Returns the slot of the attachment by which the consumer is reached.
    #[inline(always)]
    #[must_use]
    pub const fn egress_slot(&self) -> u32 {
        (self.egress_and_flags & (TO_CONSUMER - 1)) as u32
    }

    /// Returns the return path of an entry that no other CPU changes.
    #[inline(always)]
    #[must_use]
    pub const fn return_path(&self) -> ReturnPath {
        ReturnPath::from_parts(self.egress_and_flags, self.mac_or_created_at)
    }

    /// Sets the return path, with the flags beside it.
    #[inline(always)]
    pub const fn set_return_path(&mut self, path: ReturnPath) {
        (self.egress_and_flags, self.mac_or_created_at) = path.to_parts();
    }

    /// Sets direction, egress slot and address families.
    #[inline(always)]
    pub const fn set_direction(&mut self, direction: Direction, egress_slot: u32, is_nat46: bool) {
        let mut word = egress_slot as u16 & (TO_CONSUMER - 1);
        if matches!(direction, Direction::ToConsumer) {
            word |= TO_CONSUMER;
        }
        if is_nat46 {
            word |= NAT46;
        }
        self.egress_and_flags = word;
    }

    /// Returns the connection slot.
    #[inline(always)]
    #[must_use]
    pub const fn connection_slot(&self) -> u32 {
        self.connection_slot_low as u32 | (self.connection_slot_high as u32) << 16
    }

    /// Sets the connection, with its generation when the flow is opened.
    #[inline(always)]
    pub const fn set_connection(&mut self, slot: u32, generation: u32) {
        self.connection_slot_low = slot as u16;
        self.connection_slot_high = (slot >> 16) as u8;
        self.connection_generation = generation as u16;
    }

    /// Returns true if the flow was opened under this generation of its connection. No flow was opened under
    /// generation 0, which a connection has while it is not approved.
    ///
    /// Entries hold 16 bits of a generation. A flow of another generation is removed within
    /// [`ENDED_TICKS`](crate::flow::ENDED_TICKS), and no slot gets 65,536 generations in that time.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_connection(&self, generation: u32) -> bool {
        generation != 0 && self.connection_generation == generation as u16
    }

    /// Sets the backend, with its generation when the flow is opened.
    #[inline(always)]
    pub const fn set_backend(&mut self, slot: u32, generation: u32) {
        self.backend_slot = slot as u16;
        self.backend_generation = generation as u16;
    }

    /// Returns true if the flow was opened under this generation of its backend's slot. See
    /// [`Flow::is_of_connection`].
    #[inline(always)]
    #[must_use]
    pub const fn is_of_backend(&self, generation: u32) -> bool {
        self.backend_generation == generation as u16
    }

    /// Returns the MAC address that packets to the consumer are sent to.
    #[inline(always)]
    #[must_use]
    pub const fn consumer_mac(&self) -> PackedMac {
        PackedMac::from_words(self.mac_or_created_at)
    }

    /// Sets the MAC address that [`Flow::consumer_mac`] returns.
    #[inline(always)]
    pub const fn set_consumer_mac(&mut self, mac: Mac) {
        self.mac_or_created_at = mac.words();
    }

    /// Returns the coarse time at which the flow was opened. Valid only for an entry towards the service: see
    /// [`ReturnPath::created_at`].
    #[inline(always)]
    #[must_use]
    pub const fn created_at(&self, now: CoarseTime) -> CoarseTime {
        self.return_path().created_at(now)
    }

    /// Sets the time that [`Flow::created_at`] returns.
    #[inline(always)]
    pub const fn set_created_at(&mut self, time: CoarseTime) {
        self.set_return_path(self.return_path().with_created_at(time));
    }

    /// Returns the coarse time of the last packet.
    #[inline(always)]
    #[must_use]
    pub const fn last_seen(&self) -> CoarseTime {
        CoarseTime(self.last_seen_and_scale & LAST_SEEN_MASK)
    }

    /// Returns the word with the time of the last packet, and the window scale of `self`.
    #[inline(always)]
    #[must_use]
    pub const fn last_seen_word(word: u32, now: CoarseTime) -> u32 {
        word & !LAST_SEEN_MASK | now.0 & LAST_SEEN_MASK
    }

    /// Returns the word with another window scale, of 0 to 14 bits.
    #[inline(always)]
    #[must_use]
    pub const fn scale_word(word: u32, scale: u8) -> u32 {
        word & LAST_SEEN_MASK | (scale as u32) << SCALE_SHIFT
    }

    /// Returns the upper bound of the window, in bytes: the receiver's window is rounded up to 256 units of its field.
    #[inline(always)]
    #[must_use]
    pub const fn window_len(window: u8, last_seen_and_scale: u32) -> u32 {
        ((window as u32 + 1) << 8) << (last_seen_and_scale >> SCALE_SHIFT)
    }

    /// Computes the checksum delta, from packets as they arrive under `key` to packets as they leave by this entry.
    #[inline(always)]
    pub fn compute_checksum_delta(&mut self, key: &FlowKey<F>) {
        let addresses = F::replace_in_sum(Sum::ZERO, key.source, self.source);
        let addresses = F::replace_in_sum(addresses, key.destination, self.destination);
        self.l4_csum_delta = addresses
            .replace32(key.ports.to_wire(), self.ports.to_wire())
            .fold();
    }

    /// Returns the checksum delta of an IPv4 header: the addresses and the TTL decrement. `ports` are those of the
    /// arriving packet; the delta of TCP and UDP contains them, and the header does not.
    #[inline(always)]
    #[must_use]
    pub const fn ip_csum_delta(&self, ports: PortPair) -> u16 {
        Sum::ZERO
            .add_word(self.l4_csum_delta)
            .replace32(self.ports.to_wire(), ports.to_wire())
            .add_word(TTL_DECREMENT)
            .fold_short()
    }

    /// Returns true if this entry's packets are those of `key` in the other direction: they leave with its addresses
    /// and ports swapped.
    #[inline(always)]
    #[must_use]
    pub fn is_reverse_of(&self, key: &FlowKey<F>) -> bool {
        self.source == key.destination
            && self.destination == key.source
            && self.ports == key.ports.swapped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{byte_order::Be16, checksum::update};

    #[test]
    fn parts_round_trip() {
        let mut flow = Flow::<V6>::default();
        flow.set_connection(0x12_3456, 0x9_8765);
        flow.set_backend(65_535, 0x7_0001);
        assert_eq!(flow.connection_slot(), 0x12_3456);
        assert!(flow.is_of_connection(0x9_8765) && !flow.is_of_connection(0x9_8766));
        assert!(flow.is_of_backend(0x7_0001) && !flow.is_of_backend(0x7_0002));
        let mac = Mac::new([2, 3, 4, 5, 6, 7]);
        flow.set_consumer_mac(mac);
        assert_eq!(flow.consumer_mac().mac(), mac);
        flow.set_direction(Direction::ToConsumer, 16_383, true);
        assert_eq!(flow.direction(), Direction::ToConsumer);
        assert_eq!((flow.egress_slot(), flow.is_nat46()), (16_383, true));
        flow.set_direction(Direction::ToService, 0, false);
        assert_eq!(
            (flow.direction(), flow.is_nat46()),
            (Direction::ToService, false)
        );
    }

    #[test]
    fn time_and_window_scale_share_a_word() {
        let word = Flow::<V4>::scale_word(0, 14);
        let word = Flow::<V4>::last_seen_word(word, CoarseTime(123_456));
        let flow = Flow::<V4> {
            last_seen_and_scale: word,
            ..Flow::default()
        };
        assert_eq!(flow.last_seen(), CoarseTime(123_456));
        assert_eq!(Flow::<V4>::window_len(0, word), 256 << 14);
        assert_eq!(Flow::<V4>::window_len(255, 0), 65_536);
    }

    #[test]
    fn header_delta_follows_from_the_l4_delta() {
        let word = |text: &str| Be32::from(text.parse::<core::net::Ipv4Addr>().unwrap());
        let ports = |a, b| PortPair::new(Be16::new(a), Be16::new(b));
        let key = FlowKey::<V4> {
            source: word("10.0.0.5"),
            destination: word("10.0.0.100"),
            ports: ports(40_000, 443),
            ..FlowKey::default()
        };
        let mut flow = Flow::<V4> {
            source: word("10.1.0.100"),
            destination: word("10.1.0.10"),
            ports: ports(2_000, 8_443),
            ..Flow::default()
        };
        flow.compute_checksum_delta(&key);
        let addresses = V4::replace_in_sum(Sum::ZERO, key.source, flow.source);
        let addresses = V4::replace_in_sum(addresses, key.destination, flow.destination);
        let expected = addresses.add_word(TTL_DECREMENT).fold();
        for checksum in [0x1234, 0xffff, 1] {
            let checksum = Be16::new(checksum);
            assert_eq!(
                update(checksum, flow.ip_csum_delta(key.ports)),
                update(checksum, expected)
            );
        }
    }
}
