//! Models of look-ups and changes of entries that other threads replace.

use gateway_common::flow::{
    Flow, FlowKey,
    PlaceState::{self, Closed, Established, HalfOpen},
    TcpFlagsSeen,
    memory::Place as _,
};

use crate::{
    entries::{flow, is_whole, key},
    model::{FREE, FULL, Model, Table, View, first_bucket, insert, remove, set, set_state},
};

/// Result of a thread: nothing, or a count or an answer.
type Answer = Option<u32>;

/// Returns a table of one place, with entry 1 in this state.
fn only_entry_1(state: PlaceState) -> Table {
    let table = Table::new(&[FULL, FREE, FULL, FULL], first_bucket);
    set(&table, 1, state);
    table
}

/// Looks up an entry and copies it. Returns 1 if the copy is to be used, 0 if the entry was replaced, and nothing if
/// there was none.
fn copy(view: &mut View<'_>, number: u32) -> Answer {
    let found = view.lookup(&key(number))?;
    let copied = found.place.translated();
    let is_current = found.is_current();
    assert!(
        !is_current || is_whole(copied, number),
        "{copied:?} of {found:?}"
    );
    Some(u32::from(is_current))
}

#[test]
fn copy_of_an_entry_is_whole_or_discarded_while_the_entry_is_replaced() {
    Model {
        preemptions: 4,
        prepare: || only_entry_1(Closed),
        threads: [|view| copy(view, 1), |view| insert(view, 2).ok()],
        check: |table, _| assert_eq!(table.view().count(&key(2)), 1),
    }
    .explore(&[[Some(1), Some(1)], [Some(0), Some(1)], [None, Some(1)]]);
}

#[test]
fn entry_is_whole_when_it_becomes_visible() {
    Model {
        preemptions: 4,
        prepare: || only_entry_1(HalfOpen),
        threads: [|view| copy(view, 2), |view| insert(view, 2).ok()],
        check: |table, _| assert_eq!(table.view().count(&key(2)), 1),
    }
    .explore(&[[Some(1), Some(1)], [None, Some(1)]]);
}

#[test]
fn half_written_key_is_no_match() {
    Model {
        preemptions: 4,
        prepare: || only_entry_1(Closed),
        threads: [
            |view| {
                // Source of entry 2, which is written first, and destination of entry 1.
                let mut torn = key(1);
                torn.source = key(2).source;
                let found = view.lookup(&torn)?;
                Some(u32::from(found.is_current()))
            },
            |view| insert(view, 2).ok(),
        ],
        check: |_, [torn, _]| assert_ne!(*torn, Some(1)),
    }
    .explore(&[[None, Some(1)], [Some(0), Some(1)]]);
}

#[test]
fn lookup_returns_one_entry_while_the_key_changes_its_place() {
    Model {
        preemptions: 3,
        prepare: || {
            // Entry 1 is in place 1, and place 2 is free. Place 3 has an entry of the version that place 2 gets.
            let table = Table::new(&[FULL, FREE, FREE, FREE], first_bucket);
            set(&table, 9, Established);
            remove(&mut table.view(), 9);
            set(&table, 9, Established);
            set(&table, 8, HalfOpen);
            set(&table, 1, HalfOpen);
            remove(&mut table.view(), 8);
            table
        },
        threads: [
            |view| copy(view, 1),
            |view| {
                remove(view, 1);
                insert(view, 1).ok()
            },
        ],
        check: |table, _| assert_eq!(table.view().count(&key(1)), 1),
    }
    .explore(&[[Some(1), Some(2)], [Some(0), Some(2)], [None, Some(2)]]);
}

#[test]
fn change_never_hits_the_successor() {
    Model {
        preemptions: 4,
        prepare: || only_entry_1(HalfOpen),
        threads: [
            |view| {
                let mut found = view.lookup(&key(1))?;
                Some(u32::from(set_state(&mut found, Established)))
            },
            |view| {
                let removed = remove(view, 1);
                let inserted = insert(view, 2).map_or(0, |_| 1);
                Some(10 * removed + inserted)
            },
        ],
        check: |table, results| {
            let view = table.view();
            let [place] = view.visible()[..] else {
                panic!("one place, {results:?}");
            };
            assert_eq!(view.count(&key(2)), 1);
            assert!(place.control.is(HalfOpen), "{results:?}");
        },
    }
    .explore(&[[None, Some(11)], [Some(0), Some(11)], [Some(1), Some(11)]]);
}

#[test]
fn entry_is_removed_once() {
    Model {
        preemptions: 2,
        prepare: || only_entry_1(Established),
        threads: [
            |view| Some(remove(view, 1)),
            |view| Some(remove(view, 1)),
            |view| insert(view, 2).ok(),
        ],
        check: |table, [first, second, inserted]| {
            assert_eq!(first.unwrap_or(0) + second.unwrap_or(0), 1);
            assert_eq!(
                table.view().visible().len(),
                usize::from(inserted.is_some())
            );
        },
    }
    .explore(&[
        [Some(1), Some(0), Some(1)],
        [Some(0), Some(1), Some(1)],
        [Some(1), Some(0), None],
    ]);
}

#[test]
fn changes_of_one_entry_add_up() {
    fn record(view: &mut View<'_>, flag: TcpFlagsSeen) -> Answer {
        let mut found = view.lookup(&key(1))?;
        let before = found.update(|control| {
            let seen = control.flags_seen().union(flag);
            Some(control.with_flags(seen))
        });
        Some(u32::from(before?.flags_seen().0))
    }
    Model {
        preemptions: 4,
        prepare: || only_entry_1(HalfOpen),
        threads: [
            |view| record(view, TcpFlagsSeen::FIN),
            |view| record(view, TcpFlagsSeen::ACK),
        ],
        check: |table, _| {
            let found = table.view().lookup(&key(1)).expect("the entry");
            let both = TcpFlagsSeen::FIN.union(TcpFlagsSeen::ACK);
            assert_eq!(found.control.flags_seen(), both);
        },
    }
    .explore(&[
        [Some(0), Some(TcpFlagsSeen::FIN.0.into())],
        [Some(TcpFlagsSeen::ACK.0.into()), Some(0)],
    ]);
}

#[test]
fn other_direction_is_of_the_same_flow_or_discarded() {
    /// Inserts entry 1 and that of its other direction, which is older.
    fn both_directions() -> Table {
        let table = Table::new(&[FULL, FREE, FREE, FULL], first_bucket);
        let mut view = table.view();
        let mut flow_1 = flow(1);
        let reverse_key = FlowKey {
            source: flow_1.destination,
            destination: flow_1.source,
            ..FlowKey::default()
        };
        let reverse_flow = Flow {
            source: key(1).destination,
            destination: key(1).source,
            peer: u32::MAX,
            ..Flow::default()
        };
        let reverse = view.insert(&reverse_key, &reverse_flow).expect("room");
        flow_1.peer = reverse.index;
        let forward = view.insert(&key(1), &flow_1).expect("room");
        reverse.place.set_peer(forward.index);
        table
    }
    Model {
        preemptions: 3,
        prepare: both_directions,
        threads: [
            |view| {
                let found = view.lookup(&key(1))?;
                let peer = view.peer(&found)?;
                let copied = peer.place.translated();
                let is_current = peer.is_current();
                let [source, destination] = copied;
                assert!(
                    !is_current || (destination, source) == (1, 101),
                    "{copied:?}"
                );
                Some(u32::from(is_current))
            },
            |view| insert(view, 2).ok(),
        ],
        check: |table, _| {
            // The flow that was replaced is gone in both directions.
            assert_eq!(table.view().count(&key(2)), 1);
            assert_eq!(table.view().visible().len(), 1);
        },
    }
    .explore(&[[Some(1), Some(1)], [Some(0), Some(1)], [None, Some(1)]]);
}

/// Pins an entry and writes to it. Returns 1 if it was pinned, 0 if it was gone, and nothing if it was not found.
fn write_pinned(view: &mut View<'_>, number: u32) -> Answer {
    let mut found = view.lookup(&key(number))?;
    if !found.pin() {
        return Some(0);
    }
    found.place.set_return_path(9);
    found.unpin();
    Some(1)
}

/// Checks that no write has hit another entry than entry 1, and that a place without an entry is free.
fn check_pinned_writes(table: &Table) {
    let mut view = table.view();
    for found in view.visible() {
        let [number, _] = found.place.key();
        let translated = found.place.translated();
        assert!(
            number == 1 || is_whole(translated, number),
            "{translated:?}"
        );
        assert!(!found.control.is_pinned());
    }
    if view.visible().is_empty() {
        assert_eq!(insert(&mut view, 3), Ok(1));
    }
}

#[test]
fn write_to_a_pinned_entry_never_hits_a_successor() {
    Model {
        preemptions: 3,
        prepare: || only_entry_1(Closed),
        threads: [|view| write_pinned(view, 1), |view| insert(view, 2).ok()],
        check: |table, _| check_pinned_writes(table),
    }
    .explore(&[[Some(1), Some(1)], [Some(0), Some(1)], [Some(1), None]]);
}

#[test]
fn removal_of_a_pinned_entry_hides_it_and_frees_its_place() {
    Model {
        preemptions: 3,
        prepare: || only_entry_1(Established),
        threads: [
            |view| write_pinned(view, 1),
            |view| {
                let removed = remove(view, 1);
                assert!(view.lookup(&key(1)).is_none());
                Some(removed + insert(view, 2).map_or(0, |_| 2))
            },
        ],
        check: |table, [_, other]| {
            assert!(other.is_some_and(|other| other & 1 == 1));
            check_pinned_writes(table);
        },
    }
    .explore(&[[Some(1), Some(3)], [Some(1), Some(1)], [Some(0), Some(3)]]);
}

#[test]
fn one_of_two_threads_pins_an_entry() {
    Model {
        preemptions: 3,
        prepare: || only_entry_1(Established),
        threads: [|view| write_pinned(view, 1), |view| write_pinned(view, 1)],
        check: |table, _| {
            let found = table.view().lookup(&key(1)).expect("the entry");
            assert!(!found.control.is_pinned() && found.control.is(Established));
        },
    }
    .explore(&[[Some(1), Some(1)], [Some(1), Some(0)], [Some(0), Some(1)]]);
}
