//! The flow tables of the data path, and the maps that flows are judged by, in this process's memory. Reading a flow
//! takes no system call, and needs no lock.

use std::{
    collections::VecDeque,
    io,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use gateway_common::{
    Family, V4, V6,
    flow::{
        Bucket, BucketPtr, Control, Direction, Flow, FlowCount, FlowEntry, FlowKey, FlowRef,
        FlowTableUsage, FlowTimeouts, PlacePtr, PlaceState, WAYS,
        hash::{HashKeys, derive_hash_keys, fingerprint, hash_key},
        insert::{InsertError, Reclaim, insert},
        memory::{BoundedLoop, FlowMemory, LoopBody, Place as _},
        table::{self, Found},
    },
    maps::{
        Backend, CONNECTION_USAGE_COUNT, Connection, ConnectionUsage, MAX_BACKENDS,
        MAX_CONNECTIONS, name,
    },
};

use crate::bpf::mapping::ArrayMapping;

/// Number of entries whose other direction is prefetched while others are processed.
const PREFETCH_DISTANCE: usize = 16;

/// The flow table of an address family.
#[derive(Clone, Debug)]
pub struct FlowTable<F: Family> {
    buckets: Arc<ArrayMapping<Bucket<F>>>,
    hash_keys: HashKeys,
}

/// The flow tables of both families, and the maps that flows are judged by. Clones share the mappings.
#[derive(Clone, Debug)]
pub struct FlowTableSet {
    v4: FlowTable<V4>,
    v6: FlowTable<V6>,
    connections: Arc<ArrayMapping<Connection>>,
    backends: Arc<ArrayMapping<Backend>>,
    connection_usage: Arc<ArrayMapping<ConnectionUsage>>,
    table_usage: Arc<ArrayMapping<FlowTableUsage>>,
    size: u32,
}

/// An address family whose flow table is in [`FlowTableSet`].
pub trait HasFlowTable: Family {
    /// Index of the family in the map of [`FlowTableUsage`].
    const USAGE_INDEX: u32;
    /// Name of the map.
    const MAP: &'static str;

    /// Returns the family's flow table.
    fn flow_table(tables: &FlowTableSet) -> &FlowTable<Self>;
}

impl HasFlowTable for V4 {
    const USAGE_INDEX: u32 = 0;
    const MAP: &'static str = name::FLOWS_V4;

    fn flow_table(tables: &FlowTableSet) -> &FlowTable<Self> {
        &tables.v4
    }
}

impl HasFlowTable for V6 {
    const USAGE_INDEX: u32 = 1;
    const MAP: &'static str = name::FLOWS_V6;

    fn flow_table(tables: &FlowTableSet) -> &FlowTable<Self> {
        &tables.v6
    }
}

impl FlowTableSet {
    /// Maps the maps of a loaded program, whose flow tables are made for `size` flows. `map` returns the descriptor of a
    /// map and its number of elements.
    ///
    /// # Errors
    /// Fails if a map is missing, or if the kernel refuses the mapping.
    pub fn new<'a>(
        seed: u64,
        size: u32,
        map: impl Fn(&str) -> Result<(BorrowedFd<'a>, u32)>,
    ) -> Result<Self> {
        let tables = Self {
            v4: FlowTable::new(map(name::FLOWS_V4)?, seed)
                .with_context(|| map_error(name::FLOWS_V4))?,
            v6: FlowTable::new(map(name::FLOWS_V6)?, seed)
                .with_context(|| map_error(name::FLOWS_V6))?,
            connections: mapping(&map, name::CONNECTIONS, MAX_CONNECTIONS)?,
            backends: mapping(&map, name::BACKENDS, MAX_BACKENDS)?,
            connection_usage: mapping(&map, name::CONN_USAGE, CONNECTION_USAGE_COUNT)?,
            table_usage: mapping(&map, name::FLOW_USAGE, 2)?,
            size,
        };
        if let Some(usage) = tables.table_usage.element(0) {
            // SAFETY: within the mapping, aligned, and written here only.
            let present =
                unsafe { AtomicU64::from_ptr(&raw mut (*usage.as_ptr()).hash_fingerprint) };
            present.store(fingerprint(seed), Ordering::Relaxed);
        }
        Ok(tables)
    }

    /// Returns the timeouts of a flow, or nothing if it has ended: its approval was revoked, or its backend removed.
    #[must_use]
    pub fn timeouts<F: Family>(&self, flow: &Flow<F>) -> Option<FlowTimeouts> {
        let connection = self.connections.read(flow.connection_slot())?;
        let backend = self.backends.read(flow.backend_slot.into())?;
        let is_live = flow.is_of_connection(connection.generation)
            && flow.is_of_backend(backend.generation)
            && backend.resource != 0;
        is_live.then_some(connection.timeouts)
    }

    /// Returns the present backend in the slot of a flow's backend, if it is still the flow's.
    #[must_use]
    pub fn backend<F: Family>(&self, flow: &Flow<F>) -> Option<Backend> {
        let backend = self.backends.read(flow.backend_slot.into())?;
        flow.is_of_backend(backend.generation).then_some(backend)
    }

    /// Returns the link id of a flow's connection, if the flow has not ended.
    #[must_use]
    pub fn link_id<F: Family>(&self, flow: &Flow<F>) -> Option<u32> {
        self.timeouts(flow)?;
        Some(self.connections.read(flow.connection_slot())?.id)
    }

    /// Returns the usage of a connection.
    #[must_use]
    pub fn usage(&self, slot: u32) -> ConnectionUsage {
        self.connection_usage.read(slot).unwrap_or_default()
    }

    /// Returns the usage of a family's flow table.
    #[must_use]
    pub fn table_usage<F: HasFlowTable>(&self) -> FlowTableUsage {
        self.table_usage.read(F::USAGE_INDEX).unwrap_or_default()
    }

    /// Returns the number of flows that each flow table is made for: half of its places, for two entries each.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Adds to the numbers of flows and of established flows of a connection, which are never decreased below zero.
    pub fn adjust_usage(&self, slot: u32, flows: i64, established: i64) {
        if let Some(usage) = self.connection_usage.element(slot) {
            // SAFETY: within the mapping, aligned, and written by atomic operations only.
            let (all, confirmed) = unsafe {
                (
                    AtomicU64::from_ptr((&raw mut (*usage.as_ptr()).flows).cast()),
                    AtomicU64::from_ptr((&raw mut (*usage.as_ptr()).established).cast()),
                )
            };
            adjust(all, flows);
            adjust(confirmed, established);
        }
    }

    /// Adds to the number of established flows in a family's table, which is never decreased below zero.
    pub fn adjust_table_usage<F: HasFlowTable>(&self, established: i64) {
        if let Some(usage) = self.table_usage.element(F::USAGE_INDEX) {
            // SAFETY: as for `adjust_usage`.
            let confirmed =
                unsafe { AtomicU64::from_ptr((&raw mut (*usage.as_ptr()).established).cast()) };
            adjust(confirmed, established);
        }
    }

    /// Removes an entry. Returns true if it was there.
    pub fn remove<F: HasFlowTable>(&self, flow: FlowRef<F>) -> bool {
        self.end(flow, FlowRef::remove)
    }

    /// Closes an entry. Returns true if it was there and open.
    pub fn close<F: HasFlowTable>(&self, flow: FlowRef<F>) -> bool {
        self.end(flow, |flow| {
            flow.update(|control| {
                (control.is_visible() && !control.is(PlaceState::Closed))
                    .then(|| control.with_state(PlaceState::Closed))
            })
        })
    }

    /// Changes an entry so that its flow is open no more, and counts that. Returns true if `change` returns the control
    /// word before.
    fn end<F: HasFlowTable>(
        &self,
        mut flow: FlowRef<F>,
        change: impl FnOnce(&mut FlowRef<F>) -> Option<Control>,
    ) -> bool {
        // Once the entry is closed or gone, its place may get another one.
        let entry = flow.entry();
        let (slot, direction) = (entry.connection_slot(), entry.direction());
        let Some(before) = change(&mut flow) else {
            return false;
        };
        if direction == Direction::ToService && !before.is(PlaceState::Closed) {
            let established = -i64::from(before.is_confirmed());
            self.adjust_usage(slot, -1, established);
            self.adjust_table_usage::<F>(established);
        }
        true
    }
}

fn map_error(name: &str) -> String {
    format!("could not map {name} into memory")
}

fn mapping<'a, T>(
    map: &impl Fn(&str) -> Result<(BorrowedFd<'a>, u32)>,
    name: &str,
    count: u32,
) -> Result<Arc<ArrayMapping<T>>> {
    let (fd, _) = map(name)?;
    let mapping = ArrayMapping::new(fd, count).with_context(|| map_error(name))?;
    Ok(Arc::new(mapping))
}

/// Adds to a [`FlowCount`], whose number is never decreased below zero.
fn adjust(number: &AtomicU64, by: i64) {
    if by == 0 {
        return;
    }
    // The closure always returns a number.
    let _updated = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
        Some(FlowCount::from_bits(now).adjusted(by))
    });
}

impl<F: Family> FlowTable<F> {
    /// Maps a flow table, given its descriptor and its number of buckets.
    ///
    /// # Errors
    /// Fails if the kernel refuses the mapping.
    pub fn new((map, buckets): (BorrowedFd<'_>, u32), seed: u64) -> io::Result<Self> {
        Ok(Self {
            buckets: Arc::new(ArrayMapping::new(map, buckets)?),
            hash_keys: derive_hash_keys(seed),
        })
    }

    /// Returns a table in memory of this process with the entries of another one, given by an earlier layout, each
    /// bucket converted. `convert` gets a bucket as it was read twice.
    ///
    /// # Errors
    /// Fails if there is no memory.
    pub(super) fn converted(
        &self,
        convert: impl Fn(Bucket<F>, Bucket<F>) -> Bucket<F>,
    ) -> io::Result<Self> {
        Ok(Self {
            buckets: Arc::new(self.buckets.converted(convert)?),
            hash_keys: self.hash_keys,
        })
    }

    /// Returns the number of places.
    #[must_use]
    pub fn place_count(&self) -> u32 {
        self.buckets.count() * WAYS
    }

    /// Returns the visible entries in the places from `first` on, in the order of their places.
    pub fn entries(&self, first: u32) -> impl Iterator<Item = FlowRef<F>> {
        (first..self.place_count()).filter_map(|index| {
            let found = table::at_index(self, index)?;
            found.control.is_visible().then_some(found)
        })
    }

    /// Returns all visible entries. The other direction of those that `needs_peer` selects has been prefetched, so that
    /// [`FlowTable::peer`] does not wait for memory.
    pub fn entries_with_peers(
        &self,
        needs_peer: impl Fn(&FlowRef<F>) -> bool,
    ) -> impl Iterator<Item = FlowRef<F>> {
        let mut entries = self.entries(0);
        let mut ahead = VecDeque::with_capacity(PREFETCH_DISTANCE);
        std::iter::from_fn(move || {
            while ahead.len() < PREFETCH_DISTANCE {
                let Some(flow) = entries.next() else {
                    break;
                };
                if needs_peer(&flow) {
                    self.prefetch(flow.place.peer());
                }
                ahead.push_back(flow);
            }
            ahead.pop_front()
        })
    }

    /// Loads a place into the processor's cache, without waiting for it.
    fn prefetch(&self, index: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(bucket) = self.buckets.element(index / WAYS) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let way = usize::try_from(index % WAYS).unwrap_or(0);
            let place = bucket.as_ptr().cast::<FlowEntry<F>>().wrapping_add(way);
            // SAFETY: the instruction reads nothing, and x86-64 processors have it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = index;
    }

    /// Returns the visible entry with this key.
    #[must_use]
    pub fn get(&self, key: &FlowKey<F>) -> Option<FlowRef<F>> {
        table::lookup(self, key)
    }

    /// Returns the entry of the other direction.
    #[must_use]
    pub fn peer(&self, flow: &FlowRef<F>) -> Option<FlowRef<F>> {
        table::peer(self, flow)
    }

    /// Inserts an entry in this state, without replacing another one.
    ///
    /// # Errors
    /// [`InsertError`].
    pub fn insert(
        &self,
        key: &FlowKey<F>,
        flow: &Flow<F>,
        control: Control,
    ) -> Result<FlowRef<F>, InsertError> {
        let mut memory = self.clone();
        let mut found = insert::<F, Self, NothingIsDead>(&mut memory, key, flow)?;
        let _before = found.update(|present| {
            Some(
                present
                    .with_state(control.state())
                    .with_flags(control.flags_seen()),
            )
        });
        Ok(found)
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

impl<F: Family> BoundedLoop for FlowTable<F> {
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        for iteration in 0..times {
            if body.iterate(self, iteration) {
                break;
            }
        }
    }
}

impl<F: Family> FlowMemory<F> for FlowTable<F> {
    type Bucket = BucketPtr<F>;
    type Place = PlacePtr<F>;

    fn bucket_count(&self) -> u32 {
        self.buckets.count()
    }

    #[inline]
    fn bucket(&self, index: u32) -> Option<BucketPtr<F>> {
        let bucket: NonNull<Bucket<F>> = self.buckets.element(index)?;
        // SAFETY: the mapping lives as long as this table, whose references are not kept beyond it, and everybody
        // writes it through these pointers.
        Some(unsafe { BucketPtr::new(bucket) })
    }

    fn place(bucket: BucketPtr<F>, way: u32) -> PlacePtr<F> {
        bucket.place(way)
    }

    fn hash(&self, key: &FlowKey<F>) -> u64 {
        hash_key(key, |index| self.hash_keys[index])
    }
}
