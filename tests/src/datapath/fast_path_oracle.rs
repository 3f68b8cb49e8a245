//! The oracle of the fast path: it must decide like the slow path.
//!
//! Each packet of the native data path is processed once more from the same state, with the fast path disabled.

use std::{collections::BTreeMap, fmt::Debug};

use gateway_common::{Verdict, sim::SimMaps};

/// Processes a frame, and checks that the slow path decides the same with the same side effects.
///
/// # Panics
/// Panics if they differ.
#[track_caller]
pub fn process_on_both_paths(maps: &mut SimMaps, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut slow_path = (flows(maps) <= MAX_COMPARED_FLOWS).then(|| SimMaps {
        fast_path_disabled: true,
        ..maps.clone()
    });
    let decided = maps.process(ifindex, frame);
    if let Some(slow_path) = &mut slow_path {
        assert_eq!(slow_path.process(ifindex, frame), decided, "{frame:02x?}");
        let (left, expected) = (side_effects(slow_path), side_effects(maps));
        assert!(left == expected, "{left:#?}\n{expected:#?}\n{frame:02x?}");
    }
    decided
}

/// Maps with more flow entries than this are not copied for each packet.
const MAX_COMPARED_FLOWS: usize = 256;

fn flows(maps: &SimMaps) -> usize {
    let (v4, v6) = (&maps.flows_v4, &maps.flows_v6);
    v4.count() + v6.count()
}

/// Returns the state that packets change.
fn side_effects(maps: &SimMaps) -> impl PartialEq + Debug + '_ {
    let (v4, v6) = (&maps.flows_v4, &maps.flows_v6);
    let used = |slot: &u32| (*slot, maps.usage.get(*slot));
    let usage: BTreeMap<_, _> = maps.connections.keys().map(used).collect();
    let rejects = maps.reject_meters.indices().into_iter();
    let rejects: BTreeMap<_, _> = rejects
        .map(|index| (index, maps.reject_meters.get(index)))
        .collect();
    let table_usage = [0, 1].map(|family| maps.flow_table_usage.get(family));
    let buckets = maps.identification_states.indices().into_iter();
    let identifications: BTreeMap<_, _> = buckets
        .map(|bucket| (bucket, maps.identification_states.get(bucket)))
        .collect();
    (
        (v4.entries(), v6.entries()),
        (
            &maps.drops,
            &maps.connection_drops,
            &maps.attachment_drops,
            &maps.connection_counters,
        ),
        (
            (&maps.statistics, &maps.conflicts),
            (usage, rejects, table_usage),
        ),
        (&maps.fragment_records_v4, &maps.fragment_records_v6),
        identifications,
    )
}
