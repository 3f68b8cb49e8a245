//! Identifications: the field by which a receiver joins fragments.
//!
//! A receiver joins fragments of equal source, destination, protocol and identification (RFC 791; RFC 8200, section
//! 4.5). Consumers behind one SNAT address choose their identifications independently. If these were forwarded, the
//! receiver could join fragments of different consumers (RFC 4963). So a new identification is allocated for each
//! datagram that arrives in fragments, and for each IPv4 packet that a later router may fragment (RFC 6864, section
//! 5.3.1).
//!
//! Numbers are counted in buckets that are selected by a keyed hash, so that no sender can aim at another's bucket. An
//! offset from the same hash hides the count (RFC 7739, section 5).

use core::ptr::NonNull;

use crate::{
    drop_reason::DropReason,
    family::{Family, V6},
    flow::{CoarseTime, Flow, FragmentRecord},
    hash,
    maps::{IDENTIFICATION_BUCKETS, IdentificationSpace, IdentificationState},
    packet::protocol,
    pipeline::ingress::{
        fragment::{self, MAX_FRAGMENT_DELAY},
        l4::L4Packet,
    },
    platform::{Platform, PlatformFor},
};

/// Number of identifications for IPv4 fragments: the lower three quarters.
const FRAGMENT_ID_COUNT: u32 = 0xc000;

/// Number of identifications for IPv4 packets that a router may fragment: the upper quarter. There are too few of them
/// to limit the rate of all such packets, most of which never become fragments.
const UNFRAGMENTED_ID_COUNT: u32 = 0x4000;
const _: () = assert!(
    FRAGMENT_ID_COUNT + UNFRAGMENTED_ID_COUNT == 1 << 16 && UNFRAGMENTED_ID_COUNT.is_power_of_two()
);

/// Binary logarithm of the nanoseconds that the identification of a fragmented IPv4 datagram costs: 477 datagrams a
/// second.
const COST_SHIFT: u32 = 21;

/// Burst: number of fragmented IPv4 datagrams that are forwarded at once after a pause.
const BURST: u64 = 4_096;

/// Time that a receiver may hold fragments, in nanoseconds (RFC 1122, section 3.3.2).
const MAX_REASSEMBLY_TIME: u64 = 60_000_000_000;

/// A number is not used again for the time between its uses, less the burst. In that time the last fragment that is
/// forwarded with it has left its receiver's memory.
const _: () = {
    let reuse_interval = (FRAGMENT_ID_COUNT as u64 - BURST) << COST_SHIFT;
    let max_fragment_delay = CoarseTime(MAX_FRAGMENT_DELAY + 1).nanoseconds();
    assert!(reuse_interval >= max_fragment_delay + MAX_REASSEMBLY_TIME);
};

/// Maximum number of attempts to write a number that other CPUs write as well.
const MAX_ATTEMPTS: u32 = 16;

/// Separates this use of the keyed hash from its other uses.
const HASH_DOMAIN: u64 = 0x6964 << 48;

/// The identification that a packet leaves with, and the hash of the addresses that it is unique for. They share one
/// word for the same reason as in [`Exit`](crate::Exit).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identification(u64);

impl Identification {
    const NO_NEW_ID: u64 = 1 << 63;

    /// The packet keeps its identification.
    pub(crate) const UNCHANGED: Self = Self(Self::NO_NEW_ID);
    /// The receiver may still hold fragments with every number.
    const EXHAUSTED: Self = Self(Self::NO_NEW_ID | 1);
    /// No first fragment was forwarded with these addresses.
    const FRAGMENT_ORPHAN: Self = Self(Self::NO_NEW_ID | 2);

    #[inline(always)]
    const fn new(id: u32, address_hash: u32) -> Self {
        Self((address_hash as u64) << 32 | id as u64)
    }

    /// Returns the new identification, in host byte order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "keeps the lower half")]
    pub(crate) const fn id(self) -> u32 {
        self.0 as u32
    }

    /// Returns the hash of the addresses that it is unique for.
    #[inline(always)]
    pub(crate) const fn address_hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns true if the packet gets a new identification.
    #[inline(always)]
    pub(crate) const fn is_new(self) -> bool {
        self.0 & Self::NO_NEW_ID == 0
    }

    /// Returns the reason why the packet can't be forwarded, if there is one.
    #[inline(always)]
    pub(crate) fn drop_reason(self) -> Option<DropReason> {
        if self == Self::EXHAUSTED {
            Some(DropReason::FragmentIdExhausted)
        } else if self == Self::FRAGMENT_ORPHAN {
            Some(DropReason::FragmentOrphan)
        } else {
            None
        }
    }
}

/// Returns the identification of a packet that is a fragment, or that a router may fragment. Not inlined, to save
/// stack.
#[inline(never)]
pub(crate) fn for_packet<A: Family, T: Family, E: PlatformFor<A>>(
    env: &E,
    packet: &L4Packet<A>,
    entry: &Flow<T>,
    network: u32,
) -> Identification {
    let hash = hash_addresses(env, entry, packet.protocol, network);
    let address_hash = truncate_hash(hash);
    if packet.fragment.is_later_fragment() {
        // The flow may have been reopened to another backend since the first fragment. Another datagram to that backend
        // may have the number.
        let no_record = FragmentRecord {
            // No hash of 31 bits.
            address_hash: u32::MAX,
            ..FragmentRecord::default()
        };
        // Every field has a value on every path: the compiler may read them before the comparison, and the verifier
        // allows no read of an unset register.
        let record = fragment::lookup_packet_record(env, packet).unwrap_or(no_record);
        return if record.address_hash == address_hash {
            Identification::new(record.id, address_hash)
        } else {
            Identification::FRAGMENT_ORPHAN
        };
    }
    let leaves_as_ipv6 = if T::ICMP == protocol::ICMPV6 && entry.is_nat46() {
        A::ICMP == protocol::ICMP
    } else {
        A::ICMP == protocol::ICMPV6
    };
    let space = if !packet.fragment.is_fragment() {
        IdentificationSpace::UnfragmentedV4
    } else if leaves_as_ipv6 {
        IdentificationSpace::FragmentsV6
    } else {
        IdentificationSpace::FragmentsV4
    };
    match env.allocate_identification(space, bucket_index(hash)) {
        NO_FREE_IDENTIFICATION => Identification::EXHAUSTED,
        number => Identification::new(number_to_id(space, number, hash), address_hash),
    }
}

/// Returns an identification for a whole IPv4 packet of this protocol that leaves with a flow's addresses and that a
/// router may fragment. Not inlined, to save stack.
#[inline(never)]
pub(crate) fn allocate_unfragmented<T: Family, E: Platform>(
    env: &E,
    entry: &Flow<T>,
    protocol: u8,
    network: u32,
) -> u32 {
    let hash = hash_addresses(env, entry, protocol, network);
    let number =
        env.allocate_identification(IdentificationSpace::UnfragmentedV4, bucket_index(hash));
    number_to_id(IdentificationSpace::UnfragmentedV4, number, hash)
}

/// Returns the identification that a number of the bucket stands for.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "keeps the lower half")]
fn number_to_id(space: IdentificationSpace, number: u64, hash: u64) -> u32 {
    let (number, offset) = (number as u32, number_offset(hash));
    match space {
        IdentificationSpace::FragmentsV4 => {
            let id = number + hash::reduce(offset, FRAGMENT_ID_COUNT);
            if id < FRAGMENT_ID_COUNT {
                id
            } else {
                id - FRAGMENT_ID_COUNT
            }
        }
        IdentificationSpace::UnfragmentedV4 => {
            FRAGMENT_ID_COUNT + (number.wrapping_add(offset) & (UNFRAGMENTED_ID_COUNT - 1))
        }
        IdentificationSpace::FragmentsV6 => number.wrapping_add(offset),
    }
}

/// Result of [`allocate_identification`] when no number is free.
pub const NO_FREE_IDENTIFICATION: u64 = u64::MAX;

/// Allocates the next number of a bucket, or returns [`NO_FREE_IDENTIFICATION`]. If other CPUs win every attempt, a
/// whole packet gets a number that another packet has too.
#[inline(always)]
pub fn allocate_identification<E: Platform>(
    env: &E,
    space: IdentificationSpace,
    bucket: u32,
) -> u64 {
    let Some(state) = env.identification_state(bucket) else {
        return NO_FREE_IDENTIFICATION;
    };
    match space {
        IdentificationSpace::FragmentsV4 => allocate_fragment_v4(env, fragments_v4(state)),
        IdentificationSpace::UnfragmentedV4 => match next_number(env, unfragmented_v4(state)) {
            NO_FREE_IDENTIFICATION => 0,
            number => number,
        },
        IdentificationSpace::FragmentsV6 => next_number(env, fragments_v6(state)),
    }
}

/// Allocates the next number below [`FRAGMENT_ID_COUNT`], unless each of them may be in use.
#[inline(always)]
fn allocate_fragment_v4<E: Platform>(env: &E, state: NonNull<u64>) -> u64 {
    let now = env.now_nanoseconds() >> COST_SHIFT;
    for _ in 0..MAX_ATTEMPTS {
        let current = load(state);
        let (number, spent_until) = (current & 0xffff, current >> 16);
        let spent_until = if spent_until < now { now } else { spent_until };
        if spent_until - now >= BURST {
            break;
        }
        let next = if number + 1 < u64::from(FRAGMENT_ID_COUNT) {
            number + 1
        } else {
            0
        };
        if try_replace(env, state, current, (spent_until + 1) << 16 | next) {
            return number;
        }
    }
    NO_FREE_IDENTIFICATION
}

/// Increments a count, and returns the lower half of its previous value.
#[inline(always)]
fn next_number<E: Platform>(env: &E, state: NonNull<u64>) -> u64 {
    for _ in 0..MAX_ATTEMPTS {
        let current = load(state);
        if try_replace(env, state, current, current.wrapping_add(1)) {
            return current & u64::from(u32::MAX);
        }
    }
    NO_FREE_IDENTIFICATION
}

#[inline(always)]
fn load(number: NonNull<u64>) -> u64 {
    // SAFETY: in bounds of a live entry; volatile, since other CPUs write it.
    unsafe { number.as_ptr().read_volatile() }
}

/// Writes a number unless another CPU has written it since `current` was read. Returns true if it was written.
#[inline(always)]
fn try_replace<E: Platform>(env: &E, number: NonNull<u64>, current: u64, new: u64) -> bool {
    // SAFETY: as for `load`; 64-bit fields of map memory are aligned, and written here only.
    unsafe { env.compare_exchange(number, current, new) == current }
}

/// Defines the function that returns a pointer to a field of [`IdentificationState`].
macro_rules! counter_pointer {
    ($name:ident) => {
        #[inline(always)]
        fn $name(state: NonNull<IdentificationState>) -> NonNull<u64> {
            // SAFETY: the platform promises a live entry; a field of it is not null.
            unsafe { NonNull::new_unchecked(&raw mut (*state.as_ptr()).$name) }
        }
    };
}
counter_pointer!(fragments_v4);
counter_pointer!(unfragmented_v4);
counter_pointer!(fragments_v6);

/// Returns the keyed hash of the network, addresses and protocol that a flow's packets leave with. An IPv4 address has
/// the same hash in the tables of either family, since flows of both may share it.
#[inline(always)]
fn hash_addresses<T: Family, E: Platform>(
    env: &E,
    entry: &Flow<T>,
    protocol: u8,
    network: u32,
) -> u64 {
    let start = u64::from(network) << 8 | u64::from(protocol);
    let hash = hash::mix(env.hash_seed(), HASH_DOMAIN ^ start);
    let hash = V6::mix_into_hash(hash, T::to_mapped(entry.source));
    V6::mix_into_hash(hash, T::to_mapped(entry.destination))
}

/// Returns the bucket that counts the numbers of this hash.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "keeps the lower bits")]
const fn bucket_index(hash: u64) -> u32 {
    const { assert!(IDENTIFICATION_BUCKETS.is_power_of_two()) };
    hash as u32 & (IDENTIFICATION_BUCKETS - 1)
}

/// Returns the offset that is added to the numbers of the bucket.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "keeps the lower bits")]
const fn number_offset(hash: u64) -> u32 {
    (hash >> 16) as u32
}

/// Returns the part of the hash that fragment records hold: 31 bits.
#[inline(always)]
const fn truncate_hash(hash: u64) -> u32 {
    (hash >> 33) as u32
}
