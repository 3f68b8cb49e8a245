//! A flow table in memory whose places consist of atomic words, for several threads.
//!
//! The words are those of the standard library or those of the model checker. A place has the words that the
//! algorithms read: the control word, the addresses of the key, and a small part of the entry.

use std::sync::atomic::{self, AtomicU32, Ordering};

use gateway_common::{
    Be32, V4,
    flow::{
        CoarseTime, Control, Flow, FlowKey, PlaceState, WAYS,
        insert::{InsertError, Reclaim, insert},
        memory::{BoundedLoop, FlowMemory, LoopBody, Place},
        table::{self, Found},
    },
};

/// An atomic word of 32 bits.
pub(crate) trait Word: Send + Sync + 'static {
    fn new(value: u32) -> Self;
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32);
    fn compare_exchange(&self, current: u32, new: u32) -> u32;
    fn subtract(&self, amount: u32);
    fn fence(order: Ordering);
}

impl Word for AtomicU32 {
    fn new(value: u32) -> Self {
        Self::new(value)
    }

    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32) {
        self.store(value, Ordering::Relaxed);
    }

    fn compare_exchange(&self, current: u32, new: u32) -> u32 {
        let order = Ordering::Relaxed;
        match self.compare_exchange(current, new, order, order) {
            Ok(found) | Err(found) => found,
        }
    }

    fn subtract(&self, amount: u32) {
        self.fetch_sub(amount, Ordering::Relaxed);
    }

    fn fence(order: Ordering) {
        atomic::fence(order);
    }
}

/// A place whose words other threads read and write.
#[derive(Debug)]
pub(crate) struct SharedPlace<W> {
    control: W,
    key: [W; 2],
    translated: [W; 2],
    peer: W,
    last_seen: W,
}

/// A place of a table.
#[derive(Debug)]
pub(crate) enum TablePlace<W> {
    Shared(SharedPlace<W>),
    /// Holds an established entry of no test's key. It never changes, so reading it costs the model checker nothing.
    Occupied,
}

/// A flow table.
#[derive(Debug)]
pub(crate) struct Table<W> {
    places: Vec<TablePlace<W>>,
    hash: fn(&FlowKey<V4>) -> u64,
}

impl<W: Word> Table<W> {
    /// Returns a table with these places, four in each bucket: shared and free where `true`.
    pub(crate) fn new(places: &[bool], hash: fn(&FlowKey<V4>) -> u64) -> Self {
        assert!(places.len().is_multiple_of(WAYS as usize));
        let place = |is_shared: &bool| {
            if !is_shared {
                return TablePlace::Occupied;
            }
            TablePlace::Shared(SharedPlace {
                control: W::new(0),
                key: [W::new(0), W::new(0)],
                translated: [W::new(0), W::new(0)],
                peer: W::new(0),
                last_seen: W::new(0),
            })
        };
        Self {
            places: places.iter().map(place).collect(),
            hash,
        }
    }

    /// Returns the table as one thread uses it.
    pub(crate) fn view(&self) -> View<'_, W> {
        View {
            table: self,
            replaced: Vec::new(),
        }
    }
}

/// An entry that an insertion replaced: control word and source address of the key.
pub(crate) type Replaced = (Control, u32);

/// A table as one thread uses it.
#[derive(Debug)]
pub(crate) struct View<'a, W> {
    table: &'a Table<W>,
    /// Entries that this thread's insertions have replaced.
    pub(crate) replaced: Vec<Replaced>,
}

impl<'a, W: Word> View<'a, W> {
    pub(crate) fn insert(
        &mut self,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<FoundPlace<'a, W>, InsertError> {
        insert::<V4, Self, ClosedIsDead>(self, key, flow)
    }

    pub(crate) fn lookup(&self, key: &FlowKey<V4>) -> Option<FoundPlace<'a, W>> {
        table::lookup(self, key)
    }

    pub(crate) fn peer(&self, found: &FoundPlace<'a, W>) -> Option<FoundPlace<'a, W>> {
        table::peer(self, found)
    }

    /// Returns all visible entries of shared places.
    pub(crate) fn visible(&self) -> Vec<FoundPlace<'a, W>> {
        (0..self.bucket_count() * WAYS)
            .filter_map(|index| table::at_index(self, index))
            .filter(|found| found.control.is_visible() && found.place.0.is_some())
            .collect()
    }

    /// Returns the number of visible entries with this key.
    pub(crate) fn count(&self, key: &FlowKey<V4>) -> usize {
        let visible = self.visible().into_iter();
        visible.filter(|found| found.place.has(key)).count()
    }
}

/// An entry that a thread has found.
pub(crate) type FoundPlace<'a, W> = Found<PlaceView<'a, W>>;

/// A place as one thread uses it: nothing if it is occupied for good.
#[derive(Debug)]
pub(crate) struct PlaceView<'a, W>(Option<&'a SharedPlace<W>>);

impl<W> Clone for PlaceView<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for PlaceView<'_, W> {}

/// Returns the words of an address pair, as stored.
fn address_words(source: Be32, destination: Be32) -> [u32; 2] {
    [source.get(), destination.get()]
}

impl<'a, W: Word> PlaceView<'a, W> {
    /// Returns the place for a write.
    ///
    /// # Panics
    /// Panics if it is occupied for good: the algorithms must not write to a place that they have not reserved.
    fn shared(self) -> &'a SharedPlace<W> {
        self.0
            .expect("writes to places of established entries do not occur")
    }

    fn has(self, key: &FlowKey<V4>) -> bool {
        self.key() == address_words(key.source, key.destination)
    }

    /// Returns source and destination of the key.
    pub(crate) fn key(self) -> [u32; 2] {
        self.0.map_or([u32::MAX; 2], |place| load(&place.key))
    }

    /// Returns source and destination after the rewriting.
    pub(crate) fn translated(self) -> [u32; 2] {
        self.0
            .map_or([u32::MAX; 2], |place| load(&place.translated))
    }

    /// Sets the destination after the rewriting, which stands for the return path. The caller has pinned the entry.
    pub(crate) fn set_return_path(self, value: u32) {
        self.shared().translated[1].store(value);
    }
}

fn load<W: Word>(words: &[W; 2]) -> [u32; 2] {
    words.each_ref().map(|word| word.load(Ordering::Relaxed))
}

fn store<W: Word>(words: &[W; 2], values: [u32; 2]) {
    for (word, value) in words.iter().zip(values) {
        word.store(value);
    }
}

impl<W: Word> Place<V4> for PlaceView<'_, W> {
    fn control(self) -> Control {
        self.0.map_or(
            Control::NEVER_USED.next_version(PlaceState::Established),
            |place| Control::from_bits(place.control.load(Ordering::Acquire)),
        )
    }

    fn control_after(self) -> Control {
        W::fence(Ordering::Acquire);
        self.control()
    }

    fn compare_exchange(self, current: Control, new: Control) -> Control {
        W::fence(Ordering::SeqCst);
        let control = &self.shared().control;
        let found = control.compare_exchange(current.to_bits(), new.to_bits());
        W::fence(Ordering::SeqCst);
        Control::from_bits(found)
    }

    fn unpin(self) {
        W::fence(Ordering::SeqCst);
        let pin = Control::NEVER_USED.pinned().to_bits();
        self.shared().control.subtract(pin);
        W::fence(Ordering::SeqCst);
    }

    fn matches(self, key: &FlowKey<V4>) -> bool {
        self.0.is_some() && self.has(key)
    }

    fn write(self, key: &FlowKey<V4>, flow: &Flow<V4>) {
        let place = self.shared();
        store(&place.key, address_words(key.source, key.destination));
        store(
            &place.translated,
            address_words(flow.source, flow.destination),
        );
        place.peer.store(flow.peer);
        place.last_seen.store(flow.last_seen().0);
    }

    fn peer(self) -> u32 {
        self.0
            .map_or(u32::MAX, |place| place.peer.load(Ordering::Relaxed))
    }

    fn set_peer(self, index: u32) {
        self.shared().peer.store(index);
    }

    fn last_seen(self) -> CoarseTime {
        CoarseTime(
            self.0
                .map_or(0, |place| place.last_seen.load(Ordering::Relaxed)),
        )
    }

    fn is_reverse_of(self, other: Self) -> bool {
        let [source, destination] = self.translated();
        other.key() == [destination, source]
    }
}

impl<W: Word> BoundedLoop for View<'_, W> {
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        for iteration in 0..times {
            if body.iterate(self, iteration) {
                break;
            }
        }
    }
}

impl<'a, W: Word> FlowMemory<V4> for View<'a, W> {
    type Bucket = &'a [TablePlace<W>];
    type Place = PlaceView<'a, W>;

    fn bucket_count(&self) -> u32 {
        u32::try_from(self.table.places.len()).expect("a small table") / WAYS
    }

    fn bucket(&self, index: u32) -> Option<Self::Bucket> {
        self.table
            .places
            .chunks_exact(WAYS as usize)
            .nth(index as usize)
    }

    fn place(bucket: Self::Bucket, way: u32) -> Self::Place {
        match &bucket[(way & (WAYS - 1)) as usize] {
            TablePlace::Shared(place) => PlaceView(Some(place)),
            TablePlace::Occupied => PlaceView(None),
        }
    }

    fn hash(&self, key: &FlowKey<V4>) -> u64 {
        (self.table.hash)(key)
    }
}

/// Rules by which closed entries are dead.
struct ClosedIsDead;

impl<W: Word> Reclaim<V4, View<'_, W>> for ClosedIsDead {
    fn is_dead(_memory: &mut View<'_, W>, found: &FoundPlace<'_, W>) -> bool {
        found.control.is(PlaceState::Closed)
    }

    fn on_replaced(memory: &mut View<'_, W>, found: &FoundPlace<'_, W>) {
        let [source, _] = found.place.key();
        memory.replaced.push((found.control, source));
        if let Some(mut peer) = memory.peer(&found.reserved()) {
            let _before = peer.remove();
        }
    }
}
