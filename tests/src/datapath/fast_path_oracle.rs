//! The express way has to decide as the general way does: whatever goes through the native stages goes
//! through them once more with the express way closed, from the same state.

use std::{collections::BTreeMap, fmt::Debug};

use gateway_common::{
    Verdict,
    sim::{SimFlowTable, SimMaps},
};

/// What a world does with a frame that comes in by an interface. The general way decides the same, and leaves
/// the same behind.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn process_on_both_paths(
    world: &mut SimMaps,
    ifindex: u32,
    frame: &[u8],
) -> (Verdict, Vec<u8>) {
    let mut slow_path = (flows(world) <= MAX_COMPARED_FLOWS).then(|| SimMaps {
        fast_path_disabled: true,
        ..world.clone()
    });
    let decided = world.process(ifindex, frame);
    if let Some(general) = &mut slow_path {
        assert_eq!(general.process(ifindex, frame), decided, "{frame:02x?}");
        let (left, expected) = (side_effects(general), side_effects(world));
        assert!(left == expected, "{left:#?}\n{expected:#?}\n{frame:02x?}");
    }
    decided
}

/// Worlds of more entries than this are not copied for each packet.
const MAX_COMPARED_FLOWS: usize = 256;

fn flows(world: &SimMaps) -> usize {
    let (v4, v6) = (&world.flows_v4, &world.flows_v6);
    v4.established.count() + v4.half_open.count() + v6.established.count() + v6.half_open.count()
}

/// What packets leave in a world.
fn side_effects(world: &SimMaps) -> impl PartialEq + Debug + '_ {
    let (v4, v6) = (&world.flows_v4, &world.flows_v6);
    let used = |slot: &u32| (*slot, world.usage.get(*slot));
    let usage: BTreeMap<_, _> = world.connections.keys().map(used).collect();
    let buckets = world.identification_states.indices().into_iter();
    let identifications: BTreeMap<_, _> = buckets
        .map(|bucket| (bucket, world.identification_states.get(bucket)))
        .collect();
    (
        [&v4.established, &v4.half_open].map(SimFlowTable::entries),
        [&v6.established, &v6.half_open].map(SimFlowTable::entries),
        (
            &world.drops,
            &world.connection_drops,
            &world.connection_counters,
        ),
        (&world.statistics, &world.conflicts, usage),
        (&world.fragment_records_v4, &world.fragment_records_v6),
        identifications,
    )
}
