//! Threads that use one flow table at the same time, each with operations at random. Under Miri, loads return old values
//! as often as its memory model allows.

use std::{sync::atomic::AtomicU32, thread};

use gateway_common::flow::{PlaceState, hash};

use crate::{
    entries::{flow, is_whole, key},
    memory::{Table, View},
};

const THREADS: u64 = 3;
const OPERATIONS: u32 = if cfg!(miri) { 60 } else { 20_000 };
/// More keys than places, so that insertions replace entries.
const KEYS: u64 = 12;

/// Numbers of entries that a thread has inserted, removed and replaced.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    inserted: usize,
    removed: usize,
    replaced: usize,
}

/// Carries out one operation.
fn operate(view: &mut View<'_, AtomicU32>, random: u64, counts: &mut Counts) {
    let number = u32::try_from(random % KEYS).expect("a small number");
    let found = view.lookup(&key(number));
    match (random >> 32) % 8 {
        0..=2 => {
            if let Some(found) = found {
                let copied = found.place.translated();
                assert!(
                    !found.is_current() || is_whole(copied, number),
                    "{number}: {copied:?}"
                );
            }
        }
        3..=5 => counts.inserted += usize::from(view.insert(&key(number), &flow(number)).is_ok()),
        6 => {
            let removed = found.and_then(|mut found| found.remove());
            counts.removed += usize::from(removed.is_some());
        }
        _ => {
            if let Some(mut found) = found {
                let next = match found.control.state() {
                    PlaceState::HalfOpen => PlaceState::Established,
                    _ => PlaceState::Closed,
                };
                let _before = found.update(|control| Some(control.with_state(next)));
            }
        }
    }
}

#[test]
fn threads_lose_and_duplicate_no_entry() {
    let table = Table::<AtomicU32>::new(&[true; 8], |key| {
        hash::hash_key(key, |index| hash::derive_hash_keys(5)[index])
    });
    let counts = thread::scope(|scope| {
        let table = &table;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut view, mut counts) = (table.view(), Counts::default());
                    let mut random = gateway_common::hash::mix(7, thread);
                    for _ in 0..OPERATIONS {
                        random = gateway_common::hash::mix(random, 1);
                        operate(&mut view, random, &mut counts);
                    }
                    counts.replaced = view.replaced.len();
                    counts
                })
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join());
        counts
            .collect::<Result<Vec<_>, _>>()
            .expect("no thread panics")
    });
    let view = table.view();
    let sum = |part: fn(&Counts) -> usize| counts.iter().map(part).sum::<usize>();
    let gone = sum(|counts| counts.removed) + sum(|counts| counts.replaced);
    assert_eq!(
        view.visible().len(),
        sum(|counts| counts.inserted) - gone,
        "{counts:?}"
    );
    for number in 0..KEYS {
        let number = u32::try_from(number).expect("a small number");
        assert!(view.count(&key(number)) <= 1, "{number}");
    }
    for found in view.visible() {
        let [source, _] = found.place.key();
        assert!(is_whole(found.place.translated(), source), "{found:?}");
    }
}
