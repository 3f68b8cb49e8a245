//! The model checker, and what the models of the flow table share.
//!
//! Loom runs a model once for each order in which its threads can access the atomic words, within a bound of
//! preemptions: points at which a thread is interrupted though it could go on. Each model runs twice.
//!
//! First, each load is an exchange that changes nothing, so it returns the newest value. That is how x86-64 behaves
//! here: it delays plain stores only, and each of them is followed by an exchange before the place is visible. These
//! runs are exhaustive within the bound.
//!
//! Then loads are plain ones, which may return any value that the memory model of Rust allows, as on other processors.
//! Loom leaves out some orders of a plain load and a later exchange of the same word, so these runs are not exhaustive.

use std::{
    cell::Cell,
    fmt::{self, Debug},
    sync::{Arc, Mutex, atomic::Ordering},
};

use gateway_common::{
    V4,
    flow::{Control, FlowKey, PlaceState, insert::InsertError},
};
use loom::{model::Builder, sync::atomic::AtomicU32};

use crate::{
    entries::{flow, key},
    memory::{self, FoundPlace},
};

thread_local! {
    /// True while models run in which loads may return old values.
    static LOADS_ARE_WEAK: Cell<bool> = const { Cell::new(false) };
}

/// A word of the model checker.
pub(crate) struct ModelWord {
    word: AtomicU32,
    is_weak: bool,
}

impl memory::Word for ModelWord {
    fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            is_weak: LOADS_ARE_WEAK.get(),
        }
    }

    fn load(&self, order: Ordering) -> u32 {
        if self.is_weak {
            self.word.load(order)
        } else {
            // An exchange that changes nothing.
            memory::Word::compare_exchange(self, u32::MAX, u32::MAX)
        }
    }

    fn store(&self, value: u32) {
        self.word.store(value, Ordering::Relaxed);
    }

    fn compare_exchange(&self, current: u32, new: u32) -> u32 {
        let order = Ordering::SeqCst;
        match self.word.compare_exchange(current, new, order, order) {
            Ok(found) | Err(found) => found,
        }
    }

    fn subtract(&self, amount: u32) {
        self.word.fetch_sub(amount, Ordering::Relaxed);
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

impl Debug for ModelWord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("_")
    }
}

pub(crate) type Table = memory::Table<ModelWord>;
pub(crate) type View<'a> = memory::View<'a, ModelWord>;

/// A free place that threads compete for.
pub(crate) const FREE: bool = true;
/// A place of an established entry.
pub(crate) const FULL: bool = false;

/// Returns the hash by which each key lies in the first and the second bucket.
pub(crate) fn both_buckets(_key: &FlowKey<V4>) -> u64 {
    1 << 31
}

/// Returns the hash by which each key lies in the first bucket only.
pub(crate) fn first_bucket(_key: &FlowKey<V4>) -> u64 {
    0
}

/// Inserts the entry with this number under the key with the same number.
pub(crate) fn insert(view: &mut View<'_>, number: u32) -> Result<u32, InsertError> {
    let inserted = view.insert(&key(number), &flow(number));
    inserted.map(|found| found.index)
}

/// Inserts an entry in this state, before the threads begin.
pub(crate) fn set(table: &Table, number: u32, state: PlaceState) {
    let mut found = table
        .view()
        .insert(&key(number), &flow(number))
        .expect("room in the table");
    set_state(&mut found, state);
}

/// Changes the state of an entry, unless it was replaced or is in another state than half-open. Returns true if the
/// state was changed.
pub(crate) fn set_state(found: &mut FoundPlace<'_, ModelWord>, state: PlaceState) -> bool {
    let change = |control: Control| {
        control
            .is(PlaceState::HalfOpen)
            .then(|| control.with_state(state))
    };
    found.update(change).is_some()
}

/// Looks up an entry and removes it. Returns 1 if it was there until then, else 0.
pub(crate) fn remove(view: &mut View<'_>, number: u32) -> u32 {
    let found = view.lookup(&key(number));
    u32::from(found.is_some_and(|mut found| found.remove().is_some()))
}

/// A thread of a model: its result is a part of the outcome.
type Thread<T> = fn(&mut View<'_>) -> T;

/// A model: a table that threads use, and the judgement of the results.
pub(crate) struct Model<T, const THREADS: usize> {
    /// Number of preemptions in each order that is tried.
    pub(crate) preemptions: usize,
    /// Returns the table before the threads begin.
    pub(crate) prepare: fn() -> Table,
    /// The threads.
    pub(crate) threads: [Thread<T>; THREADS],
    /// Judges the table and the results of the threads afterwards.
    pub(crate) check: fn(&Table, &[T; THREADS]),
}

impl<T, const THREADS: usize> Model<T, THREADS>
where
    T: Copy + Debug + PartialEq + Send + Sync + 'static,
{
    /// Runs the model in all orders. Each of `expected` must be the result of one of them, so that a model can't pass
    /// because it reaches nothing.
    pub(crate) fn explore(&self, expected: &[[T; THREADS]]) {
        let outcomes = self.outcomes(false);
        for outcome in expected {
            assert!(
                outcomes.contains(outcome),
                "never seen: {outcome:?}, but: {outcomes:?}"
            );
        }
        self.outcomes(true);
    }

    /// Runs the model in all orders, and returns all results.
    fn outcomes(&self, is_weak: bool) -> Vec<[T; THREADS]> {
        LOADS_ARE_WEAK.set(is_weak);
        let Self {
            prepare,
            threads,
            check,
            ..
        } = *self;
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&outcomes);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        builder.max_branches = 10_000;
        builder.check(move || {
            let table = Arc::new(prepare());
            let handles = threads.map(|thread| {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || thread(&mut table.view()))
            });
            let results = handles.map(|handle| handle.join().expect("a result"));
            check(&table, &results);
            let mut outcomes = outcomes.lock().expect("a lock that no panic has poisoned");
            if !outcomes.contains(&results) {
                outcomes.push(results);
            }
        });
        let outcomes = seen.lock().expect("a lock that no panic has poisoned");
        outcomes.clone()
    }
}
