//! Comparison of the flow table with a map, by sequences of operations at random in one thread. The table is the one
//! that the simulator has, with the pointers that the data path uses.

use std::collections::HashMap;

use proptest::prelude::*;

use gateway_common::{
    Be32, V4,
    flow::{
        CoarseTime, Flow, FlowKey, FlowRef,
        PlaceState::{self, Closed, Established, FinUnacked, HalfOpen},
        WAYS,
        hash::bucket_index,
        insert::{InsertError, Reclaim, insert},
        memory::{FlowMemory, Place as _},
        table::{self, CHOICES},
    },
    sim::SimFlowTable,
};

type Table = SimFlowTable<V4>;

/// Number of flows that the operations name. The table has fewer places than these flows have entries.
const FLOWS: u32 = 12;
const BUCKETS: u32 = 4;

/// Index of the other direction's entry of an entry that has none.
const NO_PEER: u32 = u32::MAX;

/// An operation on the flow with a number.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Inserts the entries of both directions, as the data path does: the reverse one first.
    Open,
    /// Changes the state of the entry of a direction.
    SetState(bool, PlaceState),
    /// Removes the entry of a direction.
    Remove(bool),
    /// Records a packet in a direction.
    Touch(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    let state = prop_oneof![
        1 => Just(HalfOpen),
        3 => Just(Established),
        1 => Just(FinUnacked),
        1 => Just(Closed),
    ];
    prop_oneof![
        4 => Just(Operation::Open),
        3 => (any::<bool>(), state).prop_map(|(reverse, state)| Operation::SetState(reverse, state)),
        1 => any::<bool>().prop_map(Operation::Remove),
        2 => any::<bool>().prop_map(Operation::Touch),
    ]
}

/// Returns the key of a flow's entry.
fn key(number: u32, is_reverse: bool) -> FlowKey<V4> {
    let (source, destination) = if is_reverse {
        (2_000, 1_000 + number)
    } else {
        (number, 100)
    };
    FlowKey {
        source: Be32::new(source),
        destination: Be32::new(destination),
        ..FlowKey::default()
    }
}

/// Returns a flow's entry, whose packets leave as those of the other direction arrive, with addresses swapped.
fn entry(number: u32, is_reverse: bool, now: u32, peer: u32) -> Flow<V4> {
    let other = key(number, !is_reverse);
    Flow {
        source: other.destination,
        destination: other.source,
        peer,
        last_seen_and_scale: now,
        ..Flow::default()
    }
}

/// Rules by which closed entries are dead. A replaced entry is gone with its other direction.
struct ClosedIsDead;

impl Reclaim<V4, Table> for ClosedIsDead {
    fn is_dead(_memory: &mut Table, found: &FlowRef<V4>) -> bool {
        found.control.is(Closed)
    }

    fn on_replaced(memory: &mut Table, found: &FlowRef<V4>) {
        if let Some(mut peer) = table::peer(memory, &found.reserved()) {
            let _before = peer.remove();
        }
    }
}

/// An entry as the map has it.
#[derive(Clone, Copy, Debug)]
struct Expected {
    state: PlaceState,
    last_seen: u32,
    index: u32,
    /// The entry of the other direction, while both are there.
    peer: Option<FlowKey<V4>>,
    /// True until the index of the other direction is known.
    is_reservation: bool,
}

/// A table, and what should be in it.
struct Comparison {
    table: Table,
    expected: HashMap<FlowKey<V4>, Expected>,
    /// Entries as they were found before they were removed or replaced.
    gone: Vec<FlowRef<V4>>,
    now: u32,
}

impl Comparison {
    fn new() -> Self {
        Self {
            table: Table::new(BUCKETS, 3),
            expected: HashMap::new(),
            gone: Vec::new(),
            now: 0,
        }
    }

    fn run(&mut self, number: u32, operation: Operation) {
        self.now += 1;
        match operation {
            Operation::Open => self.open(number),
            Operation::SetState(is_reverse, state) => {
                let key = key(number, is_reverse);
                let Some(mut found) = self.table.get(&key) else {
                    return;
                };
                let before = found.update(|control| Some(control.with_state(state)));
                assert!(before.is_some() && found.is_current());
                self.expected.get_mut(&key).expect("an entry").state = state;
            }
            Operation::Remove(is_reverse) => {
                let key = key(number, is_reverse);
                if let Some(mut found) = self.table.get(&key) {
                    let before = found;
                    assert!(found.remove().is_some());
                    self.forget(&key, before);
                }
            }
            Operation::Touch(is_reverse) => {
                let key = key(number, is_reverse);
                if let Some(found) = self.table.get(&key) {
                    found.touch(CoarseTime(self.now));
                    self.expected.get_mut(&key).expect("an entry").last_seen = self.now;
                }
            }
        }
    }

    fn open(&mut self, number: u32) {
        let (forward, reverse) = (key(number, false), key(number, true));
        let Some(mut reservation) = self.insert(number, true, NO_PEER) else {
            return;
        };
        let Some(inserted) = self.insert(number, false, reservation.index) else {
            if reservation.is_current() {
                let before = reservation;
                assert!(reservation.remove().is_some());
                self.forget(&reverse, before);
            }
            return;
        };
        if reservation.is_current() {
            reservation.place.set_peer(inserted.index);
            let reserved = self.expected.get_mut(&reverse).expect("an entry");
            reserved.peer = Some(forward);
            reserved.is_reservation = false;
            self.expected.get_mut(&forward).expect("an entry").peer = Some(reverse);
        }
    }

    /// Inserts an entry, and checks that the insertion did what the rules demand.
    fn insert(&mut self, number: u32, is_reverse: bool, peer: u32) -> Option<FlowRef<V4>> {
        let key = key(number, is_reverse);
        let flow = entry(number, is_reverse, self.now, peer);
        let victim = self.victim(&key);
        let victims = victim.map(|victim| {
            let found = self.table.get(&victim).expect("an entry");
            (victim, found)
        });
        let inserted = insert::<V4, Table, ClosedIsDead>(&mut self.table, &key, &flow);
        if self.expected.contains_key(&key) {
            assert!(matches!(inserted, Err(InsertError::Exists)));
            return None;
        }
        let is_room = victim.is_some() || self.free_buckets(&key).next().is_some();
        let found = match inserted {
            Ok(found) => found,
            Err(error) => {
                assert_eq!((error, is_room), (InsertError::Full, false));
                return None;
            }
        };
        assert!(is_room);
        let bucket = found.index / WAYS;
        if let Some((victim, found)) = victims {
            assert_eq!(self.expected[&victim].index / WAYS, bucket);
            let peer = self.expected[&victim].peer;
            self.forget(&victim, found);
            if let Some(peer) = peer {
                self.expected.remove(&peer);
            }
        } else {
            let [first, second] = self.buckets(&key).map(|bucket| self.used(bucket).count());
            let taken = if first <= second.max(1) {
                first
            } else {
                second
            };
            let used = self.used(bucket).count();
            assert_eq!(
                used, taken,
                "the emptier bucket, or a nearly empty first one"
            );
        }
        let expected = Expected {
            state: HalfOpen,
            last_seen: self.now,
            index: found.index,
            peer: None,
            is_reservation: peer == NO_PEER,
        };
        self.expected.insert(key, expected);
        Some(found)
    }

    /// Takes note that an entry is gone.
    fn forget(&mut self, key: &FlowKey<V4>, found: FlowRef<V4>) {
        self.gone.push(found);
        let expected = self.expected.remove(key).expect("an entry");
        if let Some(peer) = expected.peer
            && let Some(peer) = self.expected.get_mut(&peer)
        {
            peer.peer = None;
        }
    }

    fn buckets(&self, key: &FlowKey<V4>) -> [u32; CHOICES as usize] {
        let hash = FlowMemory::<V4>::hash(&self.table, key);
        core::array::from_fn(|choice| {
            bucket_index(hash, u32::try_from(choice).expect("0 or 1"), BUCKETS)
        })
    }

    /// Returns the entries of a bucket.
    fn used(&self, bucket: u32) -> impl Iterator<Item = (&FlowKey<V4>, &Expected)> {
        let entries = self.expected.iter();
        entries.filter(move |(_, entry)| entry.index / WAYS == bucket)
    }

    /// Returns the buckets of a key that have a free place, after the number of their entries.
    fn free_buckets(&self, key: &FlowKey<V4>) -> impl Iterator<Item = (usize, u32)> {
        let buckets = self.buckets(key).into_iter();
        buckets
            .map(|bucket| (self.used(bucket).count(), bucket))
            .filter(|(used, _)| *used < WAYS as usize)
    }

    /// Returns the key of the entry that an insertion must replace, if no place is free: of the closed entries, or else
    /// of the half-open ones, the one that was used least recently. The reservation of a flow that is being opened stays.
    /// The key decides among entries with the same time.
    fn victim(&self, key: &FlowKey<V4>) -> Option<FlowKey<V4>> {
        if self.expected.contains_key(key) || self.free_buckets(key).next().is_some() {
            return None;
        }
        let buckets = self.buckets(key);
        let hash = FlowMemory::<V4>::hash(&self.table, key);
        let candidates = self.expected.iter().filter(|(_, entry)| {
            let may_go =
                entry.state == Closed || (entry.state == HalfOpen && !entry.is_reservation);
            buckets.contains(&(entry.index / WAYS)) && may_go
        });
        candidates
            .min_by_key(|(_, entry)| {
                let place = entry.index;
                // Both buckets of a key may be the same one.
                let choices = (0..).zip(&buckets);
                let order = choices
                    .filter(|(_, bucket)| **bucket == place / WAYS)
                    .map(|(choice, _): (u64, _)| {
                        let iteration = choice * u64::from(WAYS) + u64::from(place % WAYS);
                        (iteration ^ hash) % u64::from(CHOICES * WAYS)
                    })
                    .min();
                (entry.state == HalfOpen, entry.last_seen, order)
            })
            .map(|(key, _)| *key)
    }

    /// Checks that the table has exactly the expected entries.
    fn check(&self) {
        assert_eq!(self.table.count(), self.expected.len());
        for (number, is_reverse) in (0..FLOWS).flat_map(|number| [(number, false), (number, true)])
        {
            let key = key(number, is_reverse);
            let found = self.table.get(&key);
            let expected = self.expected.get(&key);
            assert_eq!(found.is_some(), expected.is_some(), "{key:?}");
            let (Some(found), Some(expected)) = (found, expected) else {
                continue;
            };
            let (flow, wanted) = (found.place.flow(), entry(number, is_reverse, 0, 0));
            assert_eq!(found.place.key(), key);
            assert_eq!(found.control.state(), expected.state);
            assert_eq!(found.index, expected.index);
            assert_eq!(flow.last_seen(), CoarseTime(expected.last_seen));
            assert_eq!(
                (flow.source, flow.destination),
                (wanted.source, wanted.destination)
            );
            let peer = table::peer(&self.table, &found).map(|peer| peer.place.key());
            assert_eq!(peer, expected.peer, "the other direction of {key:?}");
        }
        for gone in &self.gone {
            let mut gone = *gone;
            assert!(!gone.is_current());
            assert!(table::by_handle(&self.table, gone.handle()).is_none());
            assert!(gone.remove().is_none());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn table_agrees_with_a_map(
        operations in prop::collection::vec(
            (0..FLOWS, operation()),
            1..if cfg!(miri) { 60 } else { 300 },
        )
    ) {
        let mut comparison = Comparison::new();
        for (number, operation) in operations {
            comparison.run(number, operation);
            if !cfg!(miri) {
                comparison.check();
            }
        }
        comparison.check();
    }
}
