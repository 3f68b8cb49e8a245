//! Identifications that datagrams leave with. A receiver joins fragments of equal source, destination,
//! protocol and identification (RFC 791, RFC 8200 section 4.5). Consumers behind one source NAT address
//! choose their identifications independently, so forwarding them would let the receiver join one
//! consumer's fragments with another's (RFC 4963). A new identification is allocated for each datagram
//! that arrives in fragments, and for each IPv4 packet that a router behind the gateway may fragment
//! (RFC 6864, section 5.3.1).
//!
//! Numbers are counted in buckets chosen by a keyed hash, so that nobody can aim at another's bucket. An
//! offset from the same hash hides the count (RFC 7739, section 5).

use core::ptr::NonNull;

use crate::{
    DropReason, Environment, Family, V6,
    flow::{Flow, Tick},
    hash,
    maps::{IDENTIFICATION_BUCKETS, Identifications},
    packet::protocol,
    stages::{
        fragment::{self, LONGEST_WAIT},
        transport::Segment,
    },
};

/// Identifications of IPv4 fragments: the lower three quarters.
const FRAGMENT_IDS: u32 = 0xc000;

/// Identifications of IPv4 packets that may become fragments: the upper quarter. There are too few of
/// these to limit the rate of all such packets, most of which never become fragments.
const WHOLE_IDS: u32 = 0x4000;
const _: () = assert!(FRAGMENT_IDS + WHOLE_IDS == 1 << 16 && WHOLE_IDS.is_power_of_two());

/// Binary logarithm of the nanoseconds that an identification of a fragmented IPv4 datagram costs: 477
/// datagrams a second.
const COST_SHIFT: u32 = 21;

/// Fragmented IPv4 datagrams that are let through at once after a pause.
const BURST: u64 = 4_096;

/// Time that a receiver may hold fragments, in nanoseconds (RFC 1122, section 3.3.2).
const REASSEMBLY: u64 = 60_000_000_000;

/// Each number is spent for the time between its uses, less the burst. It is not used again before the
/// last fragment that is forwarded for it has left its receiver's memory.
const _: () = {
    let reuse = (FRAGMENT_IDS as u64 - BURST) << COST_SHIFT;
    let last_fragment = Tick(LONGEST_WAIT + 1).nanoseconds();
    assert!(reuse >= last_fragment + REASSEMBLY);
};

/// Attempts to write a number that other CPUs write as well.
const ATTEMPTS: u32 = 16;

/// Separates this use of the keyed hash from others.
const PURPOSE: u64 = 0x6964 << 48;

/// Identification that a packet leaves with, and the hash of the addresses that it is unique for. One
/// word: see [`Turn`](crate::Turn).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identification(u64);

impl Identification {
    const NONE: u64 = 1 << 63;

    /// The packet keeps its own.
    pub(super) const KEPT: Self = Self(Self::NONE);
    /// Every number may still be held by the receiver.
    const EXHAUSTED: Self = Self(Self::NONE | 1);
    /// No first fragment was forwarded with these addresses.
    const ORPHAN: Self = Self(Self::NONE | 2);

    #[inline(always)]
    const fn new(id: u32, pair: u32) -> Self {
        Self((pair as u64) << 32 | id as u64)
    }

    /// Returns the new identification, in host byte order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    pub(super) const fn id(self) -> u32 {
        self.0 as u32
    }

    /// Returns the hash of the addresses that it is unique for.
    #[inline(always)]
    pub(super) const fn pair(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns whether the packet gets a new one.
    #[inline(always)]
    pub(super) const fn is_new(self) -> bool {
        self.0 & Self::NONE == 0
    }

    /// Returns why the packet can't be forwarded, if so.
    #[inline(always)]
    pub(super) fn refused(self) -> Option<DropReason> {
        if self == Self::EXHAUSTED {
            Some(DropReason::FragmentIdExhausted)
        } else if self == Self::ORPHAN {
            Some(DropReason::FragmentOrphan)
        } else {
            None
        }
    }
}

/// Returns the identification that a segment leaves with which is a fragment, or which a router may
/// fragment. A function of its own for its stack.
#[inline(never)]
pub(super) fn of<A: Family, T: Family, E: Environment>(
    env: &E,
    segment: &Segment<A>,
    fixed: &Flow<T>,
) -> Identification {
    let hash = pair_hash(env, fixed, segment.protocol);
    let pair = pair_of(hash);
    if segment.fragment.is_later() {
        // The flow may have been reopened to another backend since the first fragment. Another datagram
        // to that backend may have the number.
        return match fragment::record(env, segment) {
            Some(record) if record.pair == pair => Identification::new(record.id, pair),
            _ => Identification::ORPHAN,
        };
    }
    let v6 = if T::ICMP == protocol::ICMPV6 && fixed.translated() {
        A::ICMP == protocol::ICMP
    } else {
        A::ICMP == protocol::ICMPV6
    };
    let space = if !segment.fragment.is_part() {
        Space::WholeV4
    } else if v6 {
        Space::FragmentsV6
    } else {
        Space::FragmentsV4
    };
    match env.allocate(space, bucket_of(hash)) {
        NONE_FREE => Identification::EXHAUSTED,
        number => Identification::new(in_space(space, number, hash), pair),
    }
}

/// Returns an identification for a whole IPv4 packet of this protocol that leaves by a flow's addresses,
/// and that a router may fragment. A function of its own for its stack.
#[inline(never)]
pub(super) fn of_whole<T: Family, E: Environment>(env: &E, fixed: &Flow<T>, protocol: u8) -> u32 {
    let hash = pair_hash(env, fixed, protocol);
    let number = env.allocate(Space::WholeV4, bucket_of(hash));
    in_space(Space::WholeV4, number, hash)
}

/// Returns the identification that a number of the bucket stands for.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn in_space(space: Space, number: u64, hash: u64) -> u32 {
    let (number, offset) = (number as u32, offset_of(hash));
    match space {
        Space::FragmentsV4 => {
            let id = number + hash::reduce(offset, FRAGMENT_IDS);
            if id < FRAGMENT_IDS {
                id
            } else {
                id - FRAGMENT_IDS
            }
        }
        Space::WholeV4 => FRAGMENT_IDS + (number.wrapping_add(offset) & (WHOLE_IDS - 1)),
        Space::FragmentsV6 => number.wrapping_add(offset),
    }
}

/// Identifications that are allocated independently of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    /// IPv4 fragments. None is allocated while a receiver may hold fragments with each.
    FragmentsV4,
    /// IPv4 packets that a router may fragment.
    WholeV4,
    /// IPv6 fragments.
    FragmentsV6,
}

/// Result of [`allocate`] when no number is free.
pub const NONE_FREE: u64 = u64::MAX;

/// Allocates the next number of a bucket, or returns [`NONE_FREE`]. Where other CPUs are in the way all
/// the time, a whole packet gets a number that another packet has too.
#[inline(always)]
pub fn allocate<E: Environment>(env: &E, space: Space, bucket: u32) -> u64 {
    let Some(state) = env.identifications(bucket) else {
        return NONE_FREE;
    };
    match space {
        Space::FragmentsV4 => allocate_v4(env, fragments_v4(state)),
        Space::WholeV4 => match count(env, whole_v4(state)) {
            NONE_FREE => 0,
            number => number,
        },
        Space::FragmentsV6 => count(env, fragments_v6(state)),
    }
}

/// Allocates the next of the numbers below [`FRAGMENT_IDS`], unless each of them may be in use.
#[inline(always)]
fn allocate_v4<E: Environment>(env: &E, state: NonNull<u64>) -> u64 {
    let now = env.nanoseconds() >> COST_SHIFT;
    for _ in 0..ATTEMPTS {
        let current = load(state);
        let (number, spent) = (current & 0xffff, current >> 16);
        let spent = if spent < now { now } else { spent };
        if spent - now >= BURST {
            break;
        }
        let next = if number + 1 < u64::from(FRAGMENT_IDS) {
            number + 1
        } else {
            0
        };
        if exchange(env, state, current, (spent + 1) << 16 | next) {
            return number;
        }
    }
    NONE_FREE
}

/// Returns the lower half of a count, and counts on.
#[inline(always)]
fn count<E: Environment>(env: &E, state: NonNull<u64>) -> u64 {
    for _ in 0..ATTEMPTS {
        let current = load(state);
        if exchange(env, state, current, current.wrapping_add(1)) {
            return current & u64::from(u32::MAX);
        }
    }
    NONE_FREE
}

#[inline(always)]
fn load(number: NonNull<u64>) -> u64 {
    // SAFETY: in bounds of a live entry; volatile, as other CPUs write it.
    unsafe { number.as_ptr().read_volatile() }
}

/// Writes a number unless another CPU has written it since `current` was read. Returns whether it did.
#[inline(always)]
fn exchange<E: Environment>(env: &E, number: NonNull<u64>, current: u64, new: u64) -> bool {
    // SAFETY: as for `load`; 64-bit fields of map memory are aligned, and written here only.
    unsafe { env.compare_exchange(number, current, new) == current }
}

/// Defines the function that returns a pointer to a field of [`Identifications`].
macro_rules! field {
    ($name:ident) => {
        #[inline(always)]
        fn $name(state: NonNull<Identifications>) -> NonNull<u64> {
            // SAFETY: the environment's promise: a live entry; a field of it is not null.
            unsafe { NonNull::new_unchecked(&raw mut (*state.as_ptr()).$name) }
        }
    };
}
field!(fragments_v4);
field!(whole_v4);
field!(fragments_v6);

/// Returns the keyed hash of the network, addresses and protocol that a flow's packets leave with. An
/// IPv4 address counts the same in the tables of either family: flows of both may share it.
#[inline(always)]
fn pair_hash<T: Family, E: Environment>(env: &E, fixed: &Flow<T>, protocol: u8) -> u64 {
    let start = u64::from(fixed.network) << 8 | u64::from(protocol);
    let hash = hash::mix(env.seed(), PURPOSE ^ start);
    let hash = V6::mix(hash, T::widen(fixed.source));
    V6::mix(hash, T::widen(fixed.destination))
}

/// Returns the bucket in which numbers are counted.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower bits are wanted")]
const fn bucket_of(hash: u64) -> u32 {
    const { assert!(IDENTIFICATION_BUCKETS.is_power_of_two()) };
    hash as u32 & (IDENTIFICATION_BUCKETS - 1)
}

/// Returns what is added to numbers of the bucket.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower bits are wanted")]
const fn offset_of(hash: u64) -> u32 {
    (hash >> 16) as u32
}

/// Returns the part of the hash that fragment records keep: 31 bits.
#[inline(always)]
const fn pair_of(hash: u64) -> u32 {
    (hash >> 33) as u32
}
