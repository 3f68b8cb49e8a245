//! The flow table: a set-associative hash table in memory that is allocated once.
//!
//! ```text
//!   key ──► hash ──► bucket 1: 4 places      a place: control word, key, entry
//!              └───► bucket 2: 4 places               (one cache line; IPv6: two)
//! ```
//!
//! A key lies in one of the two buckets that its hash selects. An insertion takes the first free place of the first
//! bucket if that has one entry at most, and else of the emptier bucket.
//! If there is none, it takes the place of an entry that is closed or has expired, and then of the oldest half-open
//! one. It never takes the place of an entry that is established and has not expired.
//!
//! # Invariants
//!
//! - **One writer.** An entry's immutable fields are written only by the CPU that moved the place to `Reserved`, and
//!   only until it leaves that state for `Tentative`.
//! - **Versions.** A place that gets another entry, or none, gets another version. A reader reads the control word
//!   before the key, and again after it has acted on the entry ([`Found::is_current`]).
//! - **Unique keys.** Of all visible entries at most one has a key: see [`insert`](crate::flow::insert).
//! - **Exchanges only.** The control word changes only by compare-and-exchange, so a change that was decided for an
//!   entry never hits its successor.
//! - **Pins.** The return path of an entry is written only while the entry is pinned, so it never hits a successor.
//! - **Late writes.** Time, acknowledgement number and window are plain stores. Such a store may hit the successor of
//!   an entry that was replaced within the same nanoseconds, where the successor's next packet corrects it.
//!
//! The order of loads is the processor's: these invariants hold on x86-64. A weakly ordered processor needs a barrier
//! in [`load_acquire`](crate::atomic::load_acquire) and [`load_after`](crate::atomic::load_after).

use crate::{
    family::Family,
    flow::{
        Control, FlowHandle, FlowId, FlowKey, PlaceState, WAYS,
        hash::bucket_index,
        memory::{FlowMemory, Place},
    },
};

/// Number of buckets in which a key can lie.
pub const CHOICES: u32 = 2;

/// Number of attempts to change a control word that other CPUs change at the same time.
const MAX_EXCHANGES: u32 = 4;

/// An entry that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<P> {
    /// Place of the entry.
    pub place: P,
    /// Control word at the time of the look-up.
    pub control: Control,
    /// Index of the place: bucket times [`WAYS`], plus the place in the bucket.
    pub index: u32,
}

/// Returns the visible entry with this key.
#[inline(always)]
pub fn lookup<F: Family, M: FlowMemory<F>>(
    memory: &M,
    key: &FlowKey<F>,
) -> Option<Found<M::Place>> {
    let hash = memory.hash(key);
    for choice in 0..CHOICES {
        let bucket_index = bucket_index(hash, choice, memory.bucket_count());
        let bucket = memory.bucket(bucket_index)?;
        // All cache lines are loaded at once, whatever the branches below do.
        let places = [0, 1, 2, 3].map(|way| M::place(bucket, way));
        let words = places.map(Place::control);
        for way in 0..WAYS {
            let (place, control) = (places[way as usize], words[way as usize]);
            if control.is_visible() && place.matches(key) {
                return Some(Found {
                    place,
                    control,
                    index: bucket_index * WAYS + way,
                });
            }
        }
    }
    None
}

/// Returns a place by its index, with its control word.
#[inline(always)]
pub fn at_index<F: Family, M: FlowMemory<F>>(memory: &M, index: u32) -> Option<Found<M::Place>> {
    let bucket = memory.bucket(index / WAYS)?;
    let place = M::place(bucket, index % WAYS);
    Some(Found {
        place,
        control: place.control(),
        index,
    })
}

/// Returns the entry of the other direction, if it is visible and belongs to the same flow. Returns nothing if another
/// entry has taken the place of the one that was found: the other direction would be that of another flow.
#[inline(always)]
pub fn peer<F: Family, M: FlowMemory<F>>(
    memory: &M,
    found: &Found<M::Place>,
) -> Option<Found<M::Place>> {
    let peer = at_index(memory, found.place.peer())?;
    let belongs = peer.control.is_visible()
        && peer.place.peer() == found.index
        && peer.place.is_reverse_of(found.place)
        && peer.place.control_after().is_same_entry(peer.control)
        && found.is_current();
    belongs.then_some(peer)
}

/// Returns the entry with this number, or nothing if that is none. The entry may have been replaced meanwhile.
#[inline(always)]
pub fn by_id<F: Family, M: FlowMemory<F>>(memory: &M, id: FlowId) -> Option<Found<M::Place>> {
    if id == FlowId::NONE {
        return None;
    }
    let bucket = memory.bucket(id.index() / WAYS)?;
    Some(Found {
        place: M::place(bucket, id.index() % WAYS),
        control: Control::from_bits(id.control()),
        index: id.index(),
    })
}

/// Returns the entry of a handle, unless it was replaced.
#[inline(always)]
pub fn by_handle<F: Family, M: FlowMemory<F>>(
    memory: &M,
    handle: FlowHandle,
) -> Option<Found<M::Place>> {
    at_index(memory, handle.index()).filter(|found| found.control.is_same_entry(handle.version()))
}

impl<P: Copy> Found<P> {
    /// Returns the place of an entry that was just replaced, as its CPU has reserved it: the old entry is still there.
    #[inline(always)]
    pub fn reserved(&self) -> Self {
        Self {
            control: self.control.next_version(PlaceState::Reserved),
            ..*self
        }
    }
}

impl<P> Found<P> {
    /// Returns the entry as a handle.
    #[inline(always)]
    pub const fn handle(&self) -> FlowHandle {
        FlowHandle::new(self.control, self.index)
    }

    /// Returns the entry as a number.
    #[inline(always)]
    pub const fn id(&self) -> FlowId {
        FlowId::new(self.control.to_bits(), self.index)
    }

    /// Reads the control word again, if the place still holds the entry that was found.
    #[inline(always)]
    pub fn refresh<F: Family>(&mut self)
    where
        P: Place<F>,
    {
        let present = self.place.control();
        if present.is_same_entry(self.control) {
            self.control = present;
        }
    }

    /// Returns true if the place still holds the entry that was found, so that everything read from it so far belonged
    /// to that entry.
    #[inline(always)]
    pub fn is_current<F: Family>(&self) -> bool
    where
        P: Place<F>,
    {
        self.place.control_after().is_same_entry(self.control)
    }

    /// Changes the control word of the entry that was found, unless it was replaced. `change` gets the present word
    /// and returns the new one, or nothing to leave it. Returns the word before the change, if there was one.
    #[inline(always)]
    pub fn update<F: Family>(
        &mut self,
        change: impl Fn(Control) -> Option<Control>,
    ) -> Option<Control>
    where
        P: Place<F>,
    {
        for _ in 0..MAX_EXCHANGES {
            let before = self.control;
            let after = change(before)?;
            let present = self.place.compare_exchange(before, after);
            if present == before {
                self.control = after;
                return Some(before);
            }
            if !present.is_same_entry(before) {
                return None;
            }
            self.control = present;
        }
        None
    }

    /// Removes the entry that was found. Returns its control word before, or nothing if it was gone already.
    #[inline(always)]
    pub fn remove<F: Family>(&mut self) -> Option<Control>
    where
        P: Place<F>,
    {
        self.update(|control| control.is_visible().then(|| control.removed()))
    }

    /// Pins the entry that was found, so that its place gets no other entry until [`Found::unpin`]. Returns false if the
    /// entry is gone, or if another CPU has pinned it.
    #[inline(always)]
    pub fn pin<F: Family>(&mut self) -> bool
    where
        P: Place<F>,
    {
        let pinned = self.update(|control| {
            (control.is_visible() && !control.is_pinned()).then(|| control.pinned())
        });
        pinned.is_some()
    }

    /// Takes back the pin. Frees the place if the entry was removed meanwhile.
    #[inline(always)]
    pub fn unpin<F: Family>(&mut self)
    where
        P: Place<F>,
    {
        let pinned = self.control;
        self.place.unpin();
        // The entry becomes tentative by a removal no more. Another CPU may have freed the place already, and a third one
        // may have a tentative entry of its own there.
        self.control = self.place.control();
        if self.control.is(PlaceState::Tentative) && self.control.is_same_entry(pinned) {
            let free = self.control.next_version(PlaceState::Free);
            // It fails if the insertion of an entry with this key has freed the place.
            let _present = self.place.compare_exchange(self.control, free);
        }
    }
}
