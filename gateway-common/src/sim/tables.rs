//! Flow tables and array maps in ordinary memory.

use crate::{
    family::Family,
    flow::{
        Bucket, BucketPtr, Control, Flow, FlowKey, PlacePtr, PlaceState, WAYS,
        hash::{HashKeys, derive_hash_keys, hash_key},
        insert::{InsertError, Reclaim, insert},
        memory::{BoundedLoop, FlowMemory, LoopBody},
        table::{self, Found},
    },
};

use std::{
    cell::{RefCell, UnsafeCell},
    collections::BTreeMap,
    ptr::NonNull,
};

/// The flow table of a family.
#[derive(Debug)]
pub struct SimFlowTable<F: Family> {
    buckets: Vec<UnsafeCell<Bucket<F>>>,
    hash_keys: HashKeys,
}

/// An entry of a flow table: control word, key and entry.
pub type SimEntry<F> = (Control, FlowKey<F>, Flow<F>);

impl<F: Family> Clone for SimFlowTable<F> {
    fn clone(&self) -> Self {
        // SAFETY: nothing else runs while this copies: the table stays in one thread.
        let copy = |bucket: &UnsafeCell<Bucket<F>>| UnsafeCell::new(unsafe { *bucket.get() });
        Self {
            buckets: self.buckets.iter().map(copy).collect(),
            hash_keys: self.hash_keys,
        }
    }
}

/// Number of buckets of a table by default.
const DEFAULT_BUCKETS: u32 = 256;

impl<F: Family> Default for SimFlowTable<F> {
    fn default() -> Self {
        Self::new(DEFAULT_BUCKETS, 0)
    }
}

impl<F: Family> SimFlowTable<F> {
    /// Returns an empty table with this number of buckets, whose hash has this seed.
    #[must_use]
    pub fn new(buckets: u32, seed: u64) -> Self {
        let buckets = (0..buckets).map(|_| UnsafeCell::default()).collect();
        Self {
            buckets,
            hash_keys: derive_hash_keys(seed),
        }
    }

    /// Returns the number of visible entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places()
            .filter(|found| found.control.is_visible())
            .count()
    }

    /// Returns copies of all visible entries, sorted by key.
    #[must_use]
    pub fn entries(&self) -> Vec<SimEntry<F>> {
        let visible = self.places().filter(|found| found.control.is_visible());
        let mut entries: Vec<_> = visible
            .map(|found| (found.control, found.place.key(), found.place.flow()))
            .collect();
        entries.sort_by_key(|(_, key, _)| *key);
        entries
    }

    /// Returns copies of the half-open entries.
    #[must_use]
    pub fn half_open(&self) -> Vec<SimEntry<F>> {
        let mut entries = self.entries();
        entries.retain(|(control, ..)| control.is(PlaceState::HalfOpen));
        entries
    }

    /// Inserts an entry in this state, without the entry of its other direction.
    ///
    /// # Panics
    /// Panics if the key exists, or if both of its buckets are full.
    pub fn set(&mut self, key: &FlowKey<F>, flow: &Flow<F>, state: PlaceState) {
        let inserted = insert::<F, Self, NothingIsDead>(self, key, flow);
        let mut found = inserted.expect("room in the flow table");
        let _before = found.update(|control| Some(control.with_state(state)));
    }

    /// Tries to insert a half-open entry that replaces none.
    ///
    /// # Errors
    /// [`InsertError`].
    pub fn insert(&mut self, key: &FlowKey<F>, flow: &Flow<F>) -> Result<u32, InsertError> {
        insert::<F, Self, NothingIsDead>(self, key, flow).map(|found| found.index)
    }

    /// Returns the visible entry with this key.
    #[must_use]
    pub fn get(&self, key: &FlowKey<F>) -> Option<Found<PlacePtr<F>>> {
        table::lookup(self, key)
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &FlowKey<F>) {
        if let Some(mut found) = self.get(key) {
            let _before = found.remove();
        }
    }

    /// Removes all entries. Places keep their versions.
    pub fn clear(&mut self) {
        for mut found in self.places() {
            let _before = found.remove();
        }
    }

    /// Returns all places.
    pub fn places(&self) -> impl Iterator<Item = Found<PlacePtr<F>>> {
        let places = 0..FlowMemory::<F>::bucket_count(self) * WAYS;
        places.filter_map(|index| table::at_index(self, index))
    }
}

/// Rules by which no entry is dead.
struct NothingIsDead;

impl<F: Family, M: FlowMemory<F>> Reclaim<F, M> for NothingIsDead {
    fn is_dead(_memory: &mut M, _found: &Found<M::Place>) -> bool {
        false
    }

    fn on_replaced(_memory: &mut M, _found: &Found<M::Place>) {}
}

impl<F: Family> BoundedLoop for SimFlowTable<F> {
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        for iteration in 0..times {
            if body.iterate(self, iteration) {
                break;
            }
        }
    }
}

impl<F: Family> FlowMemory<F> for SimFlowTable<F> {
    type Bucket = BucketPtr<F>;
    type Place = PlacePtr<F>;

    fn bucket_count(&self) -> u32 {
        u32::try_from(self.buckets.len()).unwrap_or(u32::MAX)
    }

    fn bucket(&self, index: u32) -> Option<BucketPtr<F>> {
        let cell = self.buckets.get(usize::try_from(index).ok()?)?;
        let pointer = NonNull::new(cell.get())?;
        // SAFETY: the vector never changes its length, so the bucket stays in place. One thread uses it.
        Some(unsafe { BucketPtr::new(pointer) })
    }

    fn place(bucket: BucketPtr<F>, way: u32) -> PlacePtr<F> {
        bucket.place(way)
    }

    fn hash(&self, key: &FlowKey<F>) -> u64 {
        hash_key(key, |index| self.hash_keys[index])
    }
}

/// Values of an array map that the data path writes atomically through shared references.
#[derive(Debug)]
pub struct AtomicMap<T>(RefCell<BTreeMap<u32, Box<UnsafeCell<T>>>>);

impl<T> Default for AtomicMap<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Copy + Default> Clone for AtomicMap<T> {
    fn clone(&self) -> Self {
        let copy = Self::default();
        for index in self.indices() {
            copy.set(index, self.get(index));
        }
        copy
    }
}

impl<T: Copy + Default> AtomicMap<T> {
    /// Returns the indices that were read or written, in order.
    #[must_use]
    pub fn indices(&self) -> Vec<u32> {
        self.0.borrow().keys().copied().collect()
    }

    /// Returns the value at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> T {
        // SAFETY: nothing else runs while this copies: the map stays in one thread.
        unsafe { self.entry(index).read() }
    }

    /// Replaces the value at an index.
    pub fn set(&self, index: u32, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.entry(index).write(value) }
    }

    /// Returns a pointer to the value at an index. The value stays in place.
    pub(crate) fn entry(&self, index: u32) -> NonNull<T> {
        let mut entries = self.0.borrow_mut();
        let cell = entries.entry(index).or_default();
        // SAFETY: the address of a cell is not null.
        unsafe { NonNull::new_unchecked(cell.get()) }
    }
}
