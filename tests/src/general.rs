//! The express way has to decide as the general way does: whatever goes through the native stages goes
//! through them once more with the express way closed, from the same state.

use std::{collections::BTreeMap, fmt::Debug};

use gateway_common::{
    Verdict,
    native::{FlowTable, World},
};

/// What a world does with a frame that comes in by an interface. The general way decides the same, and leaves
/// the same behind.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn process(world: &mut World, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut general = (flows(world) <= MOST_FLOWS).then(|| World {
        express_closed: true,
        ..world.clone()
    });
    let decided = world.process(ifindex, frame);
    if let Some(general) = &mut general {
        assert_eq!(general.process(ifindex, frame), decided, "{frame:02x?}");
        let (left, expected) = (left_in(general), left_in(world));
        assert!(left == expected, "{left:#?}\n{expected:#?}\n{frame:02x?}");
    }
    decided
}

/// Worlds of more entries than this are not copied for each packet.
const MOST_FLOWS: usize = 256;

fn flows(world: &World) -> usize {
    let (v4, v6) = (&world.flows_v4, &world.flows_v6);
    v4.established.count() + v4.embryonic.count() + v6.established.count() + v6.embryonic.count()
}

/// What packets leave in a world.
fn left_in(world: &World) -> impl PartialEq + Debug + '_ {
    let (v4, v6) = (&world.flows_v4, &world.flows_v6);
    let used = |slot: &u32| (*slot, world.usage.get(*slot));
    let usage: BTreeMap<_, _> = world.links.keys().map(used).collect();
    let buckets = world.identifications.places().into_iter();
    let identifications: BTreeMap<_, _> = buckets
        .map(|bucket| (bucket, world.identifications.get(bucket)))
        .collect();
    (
        [&v4.established, &v4.embryonic].map(FlowTable::entries),
        [&v6.established, &v6.embryonic].map(FlowTable::entries),
        (&world.drops, &world.link_drops, &world.link_counters),
        (&world.statistics, &world.conflicts, usage),
        (&world.fragments_v4, &world.fragments_v6),
        identifications,
    )
}
