//! Flows: one entry a direction, each with everything that its packets need.
//!
//! A direction's packets write to their own entry only, so the two directions of a flow share no
//! cache line that is written for each packet, and the state of the whole is a function of both
//! ([`TcpState::of`]).

mod ports;
mod realm;
mod tcp_state;

use core::ptr::NonNull;

use bytemuck::{Pod, Zeroable};

pub use ports::PortPair;
pub use realm::Realm;
pub use tcp_state::{Seen, TcpState};

use crate::{
    Be16, Be32, Family, V4, V6,
    checksum::{Sum, TTL_DECREMENT},
    maps::MOST_BACKENDS,
    packet::{Mac, MacWord},
};

/// Identifies one direction of a flow, as its packets arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey<F: Family> {
    /// The network that the packets arrive from, and their protocol.
    pub realm: Realm,
    /// Their source address.
    pub source: F::Address,
    /// Their destination address.
    pub destination: F::Address,
    /// Their ports.
    pub ports: PortPair,
}

/// One direction of a flow: how its packets are rewritten and where they go.
///
/// Immutable once inserted, but for `seen`, `last_seen`, `beginning`, `acknowledged`, `window` and
/// `scale`, which are read and written through [`FlowRef`] only.
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
    pub header_delta: u16,
    /// What it adds to the sum that TCP's and UDP's checksums cover.
    pub payload_delta: u16,
    /// The network the packets go to.
    pub network: u32,
    /// The link slot of the connection.
    pub link: u32,
    /// The connection's generation when the flow was opened.
    pub generation: u32,
    /// To the consumer: the attachment slot that packets leave by. To the service: that of the backend
    /// when the flow was opened; the backend's own is what counts.
    pub egress: u16,
    /// To the service: the backend, see [`Flow::set_backend`]. To the consumer: the station that the
    /// flow's first packet came from, see [`Flow::set_station`].
    pub target: [u16; 3],
    /// To the service: when the flow was opened, in ticks ([`Tick`]). To the consumer, while the flow is
    /// half-open: the sequence number of the backend's SYN, as loaded ([`FlowRef::sequence`]); once it
    /// is established: the backend's generation ([`Flow::answering_backend`]).
    pub beginning: u32,
    /// When the last packet passed, in ticks.
    pub last_seen: u32,
    /// TCP: the newest acknowledgement number seen in this direction.
    pub acknowledged: Be32,
    /// TCP: the window that came with it, as it is in the header.
    pub window: Be16,
    /// TCP: by how many bits this direction's windows are shifted (RFC 7323).
    pub scale: u8,
    /// TCP flags seen in this direction: [`Seen`].
    pub seen: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// [`Flow::TRANSLATED`], or 0.
    pub flags: u8,
    /// The backend's slot.
    pub backend_slot: u16,
}

/// Bytes of a key beside its two addresses.
const KEY_REST: usize = 8;
/// Bytes of an entry beside its two addresses.
const FLOW_REST: usize = 48;

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for FlowKey<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and `NO_PADDING` shows that nothing is between.
unsafe impl<F: Family> Pod for FlowKey<F> {}
// SAFETY: as for the key.
unsafe impl<F: Family> Zeroable for Flow<F> {}
// SAFETY: as for the key.
unsafe impl<F: Family> Pod for Flow<F> {}

/// Neither family's layouts have padding.
const NO_PADDING: () = {
    assert!(size_of::<FlowKey<V4>>() == 2 * 4 + KEY_REST);
    assert!(size_of::<FlowKey<V6>>() == 2 * 16 + KEY_REST);
    assert!(size_of::<Flow<V4>>() == 2 * 4 + FLOW_REST);
    assert!(size_of::<Flow<V6>>() == 2 * 16 + FLOW_REST);
};
const _: () = NO_PADDING;

/// Which way a flow entry's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the consumer to the service.
    ToService = 0,
    /// From the service back to the consumer.
    ToConsumer = 1,
}

impl<F: Family> FlowKey<F> {
    /// The same key among IPv6's flows, where flows between the families are.
    #[inline(always)]
    #[must_use]
    pub fn widen(&self) -> FlowKey<V6> {
        FlowKey {
            realm: self.realm,
            source: F::widen(self.source),
            destination: F::widen(self.destination),
            ports: self.ports,
        }
    }
}

impl<F: Family> Flow<F> {
    /// Its packets leave in the other family than they arrive in.
    pub const TRANSLATED: u8 = 1;

    /// Whether its packets leave in the other family.
    #[inline(always)]
    #[must_use]
    pub const fn translated(&self) -> bool {
        self.flags & Self::TRANSLATED != 0
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
        let [slot, low, high] = self.target;
        (slot as u32, low as u32 | (high as u32) << 16)
    }

    /// Sets what [`Flow::backend`] tells. There are no more slots than fit 16 bits.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "halves of words")]
    pub const fn set_backend(&mut self, slot: u32, generation: u32) {
        const { assert!(MOST_BACKENDS <= 1 << 16) };
        self.target = [slot as u16, generation as u16, (generation >> 16) as u16];
    }

    /// Returns the backend whose packets an established entry towards the consumer carries: its slot,
    /// and its generation when the flow was opened.
    #[inline(always)]
    #[must_use]
    pub const fn answering_backend(&self) -> (u32, u32) {
        (self.backend_slot as u32, self.beginning)
    }

    /// Sets what [`Flow::answering_backend`] returns. There are no more slots than fit 16 bits.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "slots fit")]
    pub const fn set_answering_backend(&mut self, (slot, generation): (u32, u32)) {
        const { assert!(MOST_BACKENDS <= 1 << 16) };
        self.backend_slot = slot as u16;
        self.beginning = generation;
    }

    /// The station that packets to the consumer go to.
    #[inline(always)]
    #[must_use]
    pub const fn station(&self) -> MacWord {
        MacWord::from_words(self.target)
    }

    /// Sets what [`Flow::station`] tells.
    #[inline(always)]
    pub const fn set_station(&mut self, station: Mac) {
        self.target = station.words();
    }

    /// When the flow was opened; only the entry towards the service knows.
    #[inline(always)]
    #[must_use]
    pub const fn created(&self) -> Tick {
        Tick(self.beginning)
    }

    /// Computes the checksum deltas: from packets as they arrive under `key` to packets as they
    /// leave by this entry.
    #[inline(always)]
    pub fn complete(&mut self, key: &FlowKey<F>) {
        let addresses = F::replace(Sum::ZERO, key.source, self.source);
        let addresses = F::replace(addresses, key.destination, self.destination);
        self.header_delta = addresses.word(TTL_DECREMENT).fold();
        self.payload_delta = addresses
            .replace32(key.ports.to_wire(), self.ports.to_wire())
            .fold();
    }

    /// The key of the other direction, given this one's protocol: its packets arrive from where
    /// these go to, with the rewritten addresses swapped.
    #[inline(always)]
    #[must_use]
    pub const fn reverse_key(&self, protocol: u8) -> FlowKey<F> {
        FlowKey {
            realm: Realm::new(self.network, protocol),
            source: self.destination,
            destination: self.source,
            ports: self.ports.swapped(),
        }
    }
}

/// Time as flows keep it: 2^30 nanoseconds (1.07 s) since the machine started, a shift away from
/// the kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    const SHIFT: u32 = 30;

    /// From nanoseconds of the monotonic clock.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "146 years fit")]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> Self::SHIFT) as u32)
    }

    /// Nanoseconds of the monotonic clock at which this tick began.
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        (self.0 as u64) << Self::SHIFT
    }

    /// How many ticks have passed since `earlier`; 0 if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A flow entry in a map: shared with other CPUs, which may write its changing fields.
#[derive(Clone, Copy, Debug)]
pub struct FlowRef<F: Family>(NonNull<Flow<F>>);

impl<F: Family> FlowRef<F> {
    /// Wraps a map's pointer.
    ///
    /// # Safety
    /// `entry` points to a live, aligned `Flow` that stays allocated while the reference is used
    /// (in eBPF: until the program returns), and nobody writes its immutable fields.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(entry: NonNull<Flow<F>>) -> Self {
        Self(entry)
    }

    /// The entry; for the fields that never change.
    #[inline(always)]
    #[must_use]
    pub fn fixed(&self) -> &Flow<F> {
        // SAFETY: `new` demands that the entry lives and that these fields are not written.
        unsafe { self.0.as_ref() }
    }

    /// The flags seen so far in this direction.
    #[inline(always)]
    #[must_use]
    pub fn seen(&self) -> Seen {
        // SAFETY: in bounds of a live entry; volatile, as other CPUs may write it.
        Seen(unsafe { (&raw const (*self.0.as_ptr()).seen).read_volatile() })
    }

    /// Replaces the flags seen.
    #[inline(always)]
    pub fn set_seen(&self, seen: Seen) {
        // SAFETY: as for `seen`; a lost race loses one flag that the next packet sets again.
        unsafe { (&raw mut (*self.0.as_ptr()).seen).write_volatile(seen.0) }
    }

    /// When the last packet passed.
    #[inline(always)]
    #[must_use]
    pub fn last_seen(&self) -> Tick {
        // SAFETY: as for `seen`.
        Tick(unsafe { (&raw const (*self.0.as_ptr()).last_seen).read_volatile() })
    }

    /// Notes that a packet passes now; writes only when the tick has changed.
    #[inline(always)]
    pub fn touch(&self, now: Tick) {
        if self.last_seen() != now {
            // SAFETY: as for `seen`; every racing writer writes the same tick.
            unsafe { (&raw mut (*self.0.as_ptr()).last_seen).write_volatile(now.0) }
        }
    }

    /// Notes the acknowledgement number and window of a segment, if they are news. `first`: nothing
    /// was noted before.
    #[inline(always)]
    pub fn note(&self, acknowledgement: Be32, window: Be16, first: bool) {
        let entry = self.0.as_ptr();
        // SAFETY: in bounds of a live entry; volatile, as other CPUs may write it. A lost race
        // leaves an older number, which the next segment renews.
        unsafe {
            let old = (&raw const (*entry).acknowledged).read_volatile();
            let ahead = acknowledgement.get().wrapping_sub(old.get());
            if first || (ahead != 0 && ahead < 1 << 31) {
                (&raw mut (*entry).acknowledged).write_volatile(acknowledgement);
            } else if ahead != 0 {
                return;
            }
            if (&raw const (*entry).window).read_volatile() != window {
                (&raw mut (*entry).window).write_volatile(window);
            }
        }
    }

    /// Notes by how many bits this direction's windows are shifted.
    #[inline(always)]
    pub fn set_scale(&self, scale: u8) {
        // SAFETY: as for `seen`.
        unsafe { (&raw mut (*self.0.as_ptr()).scale).write_volatile(scale) }
    }

    /// Whether a segment of the other direction with this sequence number lies in the window that
    /// this direction's sender has opened (RFC 9293, section 3.10.7.4; RFC 5961, section 3).
    #[inline(always)]
    #[must_use]
    pub fn accepts(&self, sequence: Be32) -> bool {
        let entry = self.0.as_ptr();
        // SAFETY: as for `seen`.
        let (from, window, scale) = unsafe {
            (
                (&raw const (*entry).acknowledged).read_volatile(),
                (&raw const (*entry).window).read_volatile(),
                (&raw const (*entry).scale).read_volatile(),
            )
        };
        let size = u32::from(window.get()) << (scale & 15);
        sequence.get().wrapping_sub(from.get()) <= size
    }

    /// The sequence number of the backend's SYN, in the entry towards the consumer of a half-open flow.
    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> Be32 {
        // SAFETY: as for `seen`.
        Be32::from_raw(unsafe { (&raw const (*self.0.as_ptr()).beginning).read_volatile() })
    }

    /// Notes the sequence number of the backend's SYN, in the entry towards the consumer.
    #[inline(always)]
    pub fn set_sequence(&self, sequence: Be32) {
        // SAFETY: as for `seen`.
        unsafe { (&raw mut (*self.0.as_ptr()).beginning).write_volatile(sequence.raw()) }
    }
}

/// Which of the two tables a flow entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Flows both sides agreed to: never evicted.
    Established,
    /// Flows that are being opened: the least recently used makes room.
    Embryonic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks() {
        assert_eq!(Tick::from_nanoseconds(0), Tick(0));
        assert_eq!(Tick::from_nanoseconds(1 << 31), Tick(2));
        assert_eq!(Tick(5).since(Tick(3)), 2);
        assert_eq!(Tick(3).since(Tick(5)), 0);
        assert_eq!(Tick::from_nanoseconds(Tick(77).nanoseconds()), Tick(77));
    }

    #[test]
    fn a_target_is_a_backend_or_a_station() {
        let mut flow = Flow::<V6>::default();
        flow.set_backend(65_535, 0x1234_5678);
        assert_eq!(flow.backend(), (65_535, 0x1234_5678));
        let station = Mac::new([2, 3, 4, 5, 6, 7]);
        flow.set_station(station);
        assert_eq!(flow.station().mac(), station);
        flow.set_answering_backend((65_535, 0x8765_4321));
        assert_eq!(flow.answering_backend(), (65_535, 0x8765_4321));
    }

    #[test]
    fn both_directions_name_each_other() {
        let forward_key = FlowKey::<V4> {
            realm: Realm::new(1, 6),
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
        assert_eq!(forward.reverse_key(6).realm.network(), 2);
        assert_eq!(forward.reverse_key(6).source, forward.destination);
    }
}
