//! Models of insertions that meet each other.

use gateway_common::flow::{
    PlaceState::{Closed, Established, HalfOpen},
    insert::InsertError::{self, Exists, Full},
};

use crate::{
    entries::{is_whole, key},
    model::{FREE, FULL, Model, Table, both_buckets, first_bucket, insert, remove, set, set_state},
};

/// Returns the number of successes.
fn successes<const THREADS: usize>(results: &[Result<u32, InsertError>; THREADS]) -> usize {
    results.iter().filter(|result| result.is_ok()).count()
}

/// Returns a table with one free place in each bucket.
fn one_place_in_each_bucket() -> Table {
    let bucket = [FULL, FREE, FULL, FULL];
    Table::new(&[bucket, bucket].concat(), both_buckets)
}

#[test]
fn one_of_two_insertions_of_a_key_succeeds() {
    Model {
        preemptions: 3,
        prepare: one_place_in_each_bucket,
        threads: [|view| insert(view, 1), |view| insert(view, 1)],
        check: |table, results| {
            assert_eq!(successes(results), 1, "{results:?}");
            assert_eq!(table.view().count(&key(1)), 1);
        },
    }
    .explore(&[[Ok(1), Err(Exists)], [Err(Exists), Ok(1)]]);
}

#[test]
fn one_of_two_insertions_of_a_key_succeeds_where_both_replace_entries() {
    Model {
        preemptions: 3,
        prepare: || {
            let table = one_place_in_each_bucket();
            set(&table, 2, Closed);
            set(&table, 3, Closed);
            table
        },
        threads: [|view| insert(view, 1), |view| insert(view, 1)],
        check: |table, results| {
            assert_eq!(successes(results), 1, "{results:?}");
            assert_eq!(table.view().count(&key(1)), 1);
        },
    }
    .explore(&[[Ok(1), Err(Exists)], [Err(Exists), Ok(1)]]);
}

#[test]
fn one_of_three_insertions_of_a_key_succeeds() {
    Model {
        preemptions: 1,
        prepare: || Table::new(&[FREE, FULL, FREE, FREE], first_bucket),
        threads: [
            |view| insert(view, 1),
            |view| insert(view, 1),
            |view| insert(view, 1),
        ],
        check: |table, results| {
            assert_eq!(successes(results), 1, "{results:?}");
            assert_eq!(table.view().count(&key(1)), 1);
        },
    }
    .explore(&[[Ok(0), Err(Exists), Err(Exists)]]);
}

#[test]
fn two_insertions_never_share_the_last_free_place() {
    Model {
        preemptions: 3,
        prepare: || Table::new(&[FULL, FULL, FREE, FULL], first_bucket),
        threads: [
            |view| {
                let inserted = insert(view, 1);
                // What was inserted is found until it is replaced, and the other insertion may replace it.
                (inserted, view.replaced.len())
            },
            |view| {
                let inserted = insert(view, 2);
                (inserted, view.replaced.len())
            },
        ],
        check: |table, results| {
            let view = table.view();
            let [(first, first_replaced), (second, second_replaced)] = results;
            assert_eq!(view.visible().len(), 1);
            assert_eq!(
                view.count(&key(1)),
                usize::from(first.is_ok()) - second_replaced
            );
            assert_eq!(
                view.count(&key(2)),
                usize::from(second.is_ok()) - first_replaced
            );
            for found in view.visible() {
                let [source, _] = found.place.key();
                assert!(is_whole(found.place.translated(), source));
            }
        },
    }
    .explore(&[
        [(Ok(2), 0), (Ok(2), 1)],
        [(Ok(2), 1), (Ok(2), 0)],
        [(Ok(2), 0), (Err(Full), 0)],
    ]);
}

#[test]
fn two_insertions_take_two_free_places() {
    Model {
        preemptions: 3,
        prepare: || Table::new(&[FULL, FREE, FREE, FULL], first_bucket),
        threads: [|view| insert(view, 1), |view| insert(view, 2)],
        check: |table, results| {
            assert_eq!(successes(results), 2, "{results:?}");
            assert_eq!(table.view().count(&key(1)), 1);
            assert_eq!(table.view().count(&key(2)), 1);
        },
    }
    .explore(&[[Ok(1), Ok(2)], [Ok(2), Ok(1)]]);
}

/// Returns a table of one place, with entry 1.
fn only_entry_1() -> Table {
    let table = Table::new(&[FULL, FREE, FULL, FULL], first_bucket);
    set(&table, 1, HalfOpen);
    table
}

#[test]
fn flow_that_becomes_established_is_not_replaced() {
    Model {
        preemptions: 4,
        prepare: only_entry_1,
        threads: [
            |view| {
                let found = view.lookup(&key(1));
                Ok(u32::from(found.is_some_and(|mut found| {
                    set_state(&mut found, Established)
                })))
            },
            |view| insert(view, 2),
        ],
        check: |table, results| {
            let view = table.view();
            let [place] = view.visible()[..] else {
                panic!("one place, {results:?}");
            };
            let is_established = results[0] == Ok(1);
            assert_eq!(place.control.is(Established), is_established);
            assert_eq!(view.count(&key(1)) == 1, is_established);
            assert_eq!(view.count(&key(2)) == 1, !is_established);
            assert_eq!(results[1].is_ok(), !is_established);
        },
    }
    .explore(&[[Ok(1), Err(Full)], [Ok(0), Ok(1)]]);
}

#[test]
fn every_insertion_of_a_key_is_removed_or_stays() {
    Model {
        preemptions: 3,
        prepare: || {
            let table = one_place_in_each_bucket();
            set(&table, 1, HalfOpen);
            table
        },
        threads: [
            |view| Ok(remove(view, 1)),
            |view| insert(view, 1),
            |view| insert(view, 1),
        ],
        check: |table, results| {
            let removed = usize::from(results[0] == Ok(1));
            let count = table.view().count(&key(1));
            assert!(count <= 1);
            assert_eq!(1 + successes(results) - 1, count + removed, "{results:?}");
        },
    }
    .explore(&[
        [Ok(1), Err(Exists), Err(Exists)],
        [Ok(1), Ok(1), Err(Exists)],
        [Ok(1), Err(Exists), Ok(1)],
    ]);
}
