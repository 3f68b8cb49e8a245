//! Insertion into the flow table, without locks.
//!
//! ```text
//!   Free, or an entry that may be replaced
//!     │ exchange: only one CPU gets the place
//!     ▼
//!   Reserved ──── the entry is written
//!     │ exchange, a full barrier
//!     ▼
//!   Tentative ─── both buckets are searched for the same key
//!     │ exchange            │ found
//!     ▼                     ▼
//!   HalfOpen              Free
//! ```
//!
//! # Why no two visible entries have one key
//!
//! Two CPUs that insert the same key both make their entries tentative before they search, with a full barrier in
//! between. So at least one of them sees the other's entry. It withdraws its own if the other entry is visible or has
//! the lower index. Otherwise it removes the other's by an exchange: the other CPU's exchange to `HalfOpen` then
//! fails. If that exchange came first, the CPU withdraws its own entry after all. So at most one of the two becomes
//! visible.
//!
//! # Why one of them becomes visible
//!
//! A CPU withdraws its entry only for an entry that has the key and is visible, or is tentative with a lower index. So
//! the entry with the lowest index stays, unless a visible one has the key. An entry that was withdrawn meanwhile is no
//! reason, except for the moment in which it is pinned. Neither is a place that got another entry between the load of its control word and that of its key: an entry
//! that came so late was reserved after the own one became tentative, and its CPU finds that.

use core::marker::PhantomData;

use crate::{
    family::Family,
    flow::{
        Control, Flow, FlowKey, NO_PEER, PlaceState, WAYS,
        hash::bucket_index,
        memory::{FlowMemory, LoopBody, Place},
        table::{CHOICES, Found, at_index},
    },
};

/// Cause of a failed insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The table has an entry with this key, or another CPU is inserting one.
    Exists,
    /// Both buckets are full of established entries.
    Full,
}

/// The rules by which an insertion replaces other entries.
pub trait Reclaim<F: Family, M: FlowMemory<F>> {
    /// Returns true if the flow is closed or has expired.
    fn is_dead(memory: &mut M, found: &Found<M::Place>) -> bool;
    /// Accounts for an entry that was just replaced, given its control word before, and removes the entry of its
    /// other direction. The place still holds the old entry.
    fn on_replaced(memory: &mut M, found: &Found<M::Place>);
}

/// No index of a place.
const NONE: u32 = u32::MAX;

/// Attempts to get a place that other CPUs want too.
const MAX_ATTEMPTS: u32 = 3;

/// Contents of a key's two buckets: a bit for each free place, and the number of written entries with the key above. One
/// word, so that a BPF function can return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey(u64);

impl Survey {
    const MATCHES_SHIFT: u32 = CHOICES * WAYS;
    const FREE_MASK: u64 = (1 << WAYS) - 1;

    /// Looks at both buckets of a key.
    #[inline(always)]
    pub fn new<F: Family, M: FlowMemory<F>>(memory: &M, key: &FlowKey<F>) -> Self {
        let (hash, count) = (memory.hash(key), memory.bucket_count());
        let (mut matches, mut free) = (0, 0);
        for choice in 0..CHOICES {
            if let Some(bucket) = memory.bucket(bucket_index(hash, choice, count)) {
                for way in 0..WAYS {
                    let place = M::place(bucket, way);
                    let control = place.control();
                    free |= control.free_bit() << (choice * WAYS + way);
                    if control.is_written() && place.matches(key) {
                        matches += 1;
                    }
                }
            }
        }
        Self(matches << Self::MATCHES_SHIFT | free)
    }

    /// Wraps a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the number of written entries with the key.
    #[inline(always)]
    const fn matches(self) -> u64 {
        self.0 >> Self::MATCHES_SHIFT
    }

    /// Returns the index of the free place to take: the first one of the first bucket if that has one entry at most, or
    /// else of the emptier bucket. So most look-ups end in the first bucket. [`NONE`] if no place is free.
    #[inline(always)]
    fn free_index(self, hash: u64, bucket_count: u32) -> u32 {
        /// Numbers of set bits of 0 to 15, in three bits each.
        const COUNTS: u64 = 0x8da6_9169_1448;
        /// Lowest set bits of 0 to 15, in two bits each.
        const LOWEST: u64 = 0x1213_1210;
        const { assert!(WAYS == 4) };
        let (first, second) = (self.0 & Self::FREE_MASK, self.0 >> WAYS & Self::FREE_MASK);
        let count = |free: u64| (COUNTS >> (3 * free)) & 7;
        let is_first = count(first) >= count(second).min(u64::from(WAYS) - 1);
        let (free, choice) = if is_first { (first, 0) } else { (second, 1) };
        if free == 0 {
            return NONE;
        }
        let way = (LOWEST >> (2 * free)) & 3;
        bucket_index(hash, choice, bucket_count) * WAYS + way as u32
    }
}

/// The search for an entry to replace, since no place is free.
struct Search<'a, F: Family, R> {
    key: &'a FlowKey<F>,
    hash: u64,
    exists: bool,
    /// The entry to replace, with its control word: dead before half-open, and of each kind the entry that was used
    /// least recently.
    victim: u32,
    victim_control: Control,
    victim_rank: u64,
    rules: PhantomData<R>,
}

/// Bits of a victim's rank in which entries with the same time differ.
const ORDER_BITS: u32 = 3;
const _: () = assert!(CHOICES * WAYS == 1 << ORDER_BITS);

/// The bit of a victim's rank that a half-open entry has and a dead one has not.
const ALIVE: u64 = 1 << 40;

impl<F: Family, M: FlowMemory<F>, R: Reclaim<F, M>> LoopBody<M> for Search<'_, F, R> {
    #[inline(always)]
    fn iterate(&mut self, memory: &mut M, iteration: u32) -> bool {
        let choice = iteration / WAYS;
        let bucket = bucket_index(self.hash, choice, memory.bucket_count());
        let Some(found) = at_index(memory, bucket * WAYS + iteration % WAYS) else {
            return false;
        };
        if !found.control.is_written() {
            return false;
        }
        if found.place.matches(self.key) {
            self.exists = true;
            return true;
        }
        // The place of a pinned entry gets no other one.
        if !found.control.is_visible() || found.control.is_pinned() {
            return false;
        }
        // The key decides among entries with the same time. If the order of places did, the newest entry of a bucket would
        // be the first to be replaced.
        let order = (u64::from(iteration) ^ self.hash) % u64::from(CHOICES * WAYS);
        let last_seen = u64::from(found.place.last_seen().0) << ORDER_BITS | order;
        let rank = if R::is_dead(memory, &found) {
            last_seen
        } else if found.control.is(PlaceState::HalfOpen) && found.place.peer() != NO_PEER {
            // An entry without its other direction may be the reservation of this new flow.
            ALIVE | last_seen
        } else {
            return false;
        };
        if rank < self.victim_rank {
            self.victim = found.index;
            self.victim_control = found.control;
            self.victim_rank = rank;
        }
        false
    }
}

/// Inserts a half-open entry.
///
/// # Errors
/// [`InsertError`], with no entry changed.
#[inline(always)]
pub fn insert<F: Family, M: FlowMemory<F>, R: Reclaim<F, M>>(
    memory: &mut M,
    key: &FlowKey<F>,
    flow: &Flow<F>,
) -> Result<Found<M::Place>, InsertError> {
    let hash = memory.hash(key);
    for _ in 0..MAX_ATTEMPTS {
        let survey = memory.survey(key);
        if survey.matches() != 0 {
            return Err(InsertError::Exists);
        }
        let free = survey.free_index(hash, memory.bucket_count());
        let (mut index, mut victim_control) = (free, Control::NEVER_USED);
        if free == NONE {
            let mut search = Search::<F, R> {
                key,
                hash,
                exists: false,
                victim: NONE,
                victim_control: Control::NEVER_USED,
                victim_rank: u64::MAX,
                rules: PhantomData,
            };
            memory.bounded_loop(CHOICES * WAYS, &mut search);
            if search.exists {
                return Err(InsertError::Exists);
            }
            if search.victim == NONE {
                return Err(InsertError::Full);
            }
            (index, victim_control) = (search.victim, search.victim_control);
        }
        let Some(mut found) = at_index(memory, index) else {
            return Err(InsertError::Full);
        };
        if free == NONE {
            found.control = victim_control;
        } else if !found.control.is(PlaceState::Free) {
            continue;
        }
        let reserved = found.control.next_version(PlaceState::Reserved);
        if found.place.compare_exchange(found.control, reserved) != found.control {
            continue;
        }
        if free == NONE {
            R::on_replaced(memory, &found);
        }
        found.control = reserved;
        return publish(memory, key, flow, hash, found);
    }
    Err(InsertError::Exists)
}

/// Writes the entry into a reserved place, and makes it visible unless another entry has its key.
#[inline(always)]
fn publish<F: Family, M: FlowMemory<F>>(
    memory: &mut M,
    key: &FlowKey<F>,
    flow: &Flow<F>,
    hash: u64,
    mut found: Found<M::Place>,
) -> Result<Found<M::Place>, InsertError> {
    found.place.write(key, flow);
    let tentative = found.control.with_state(PlaceState::Tentative);
    let visible = found.control.with_state(PlaceState::HalfOpen);
    // Nobody else changes a reserved place, so this exchange can't fail. It is the barrier before the search.
    let _reserved = found.place.compare_exchange(found.control, tentative);
    // One of them is the own entry.
    if memory.survey(key).matches() != 1 {
        let mut rivals = Rivals {
            key,
            hash,
            own_index: found.index,
            is_lost: false,
        };
        memory.bounded_loop(CHOICES * WAYS, &mut rivals);
        if rivals.is_lost {
            let free = tentative.next_version(PlaceState::Free);
            // If it fails, the other CPU has removed the entry.
            let _present = found.place.compare_exchange(tentative, free);
            return Err(InsertError::Exists);
        }
    }
    if found.place.compare_exchange(tentative, visible) != tentative {
        return Err(InsertError::Exists);
    }
    found.control = visible;
    Ok(found)
}

/// The search for other entries with the key of a tentative one.
struct Rivals<'a, F: Family> {
    key: &'a FlowKey<F>,
    hash: u64,
    own_index: u32,
    is_lost: bool,
}

impl<F: Family, M: FlowMemory<F>> LoopBody<M> for Rivals<'_, F> {
    #[inline(always)]
    fn iterate(&mut self, memory: &mut M, iteration: u32) -> bool {
        let bucket = bucket_index(self.hash, iteration / WAYS, memory.bucket_count());
        let index = bucket * WAYS + iteration % WAYS;
        let Some(other) = at_index(memory, index) else {
            return false;
        };
        if index == self.own_index
            || !other.control.is_written()
            || !other.place.matches(self.key)
            || !other.is_current()
        {
            return false;
        }
        let removed = other.control.next_version(PlaceState::Free);
        let is_kept = other.control.is_visible() || other.control.is_pinned();
        self.is_lost = is_kept || index < self.own_index || {
            let present = other.place.compare_exchange(other.control, removed);
            // The exchange fails if the other entry has become visible, or if its CPU has withdrawn it.
            present != other.control && present.is_same_entry(other.control)
        };
        self.is_lost
    }
}
