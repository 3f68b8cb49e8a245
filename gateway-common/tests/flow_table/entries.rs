//! Keys and entries of tests, by number.

use gateway_common::{
    Be32, V4,
    flow::{CoarseTime, Flow, FlowKey},
};

/// Returns a key.
pub(crate) fn key(number: u32) -> FlowKey<V4> {
    FlowKey {
        source: Be32::new(number),
        destination: Be32::new(100 + number),
        ..FlowKey::default()
    }
}

/// Returns an entry whose parts both depend on its number. The entries of higher numbers are younger.
pub(crate) fn flow(number: u32) -> Flow<V4> {
    let mut flow = Flow {
        source: Be32::new(1_000 + number),
        destination: Be32::new(2_000 + number),
        // An index that no place has. The entry is not the reservation of a flow that is being opened.
        peer: u32::MAX - 1,
        ..Flow::default()
    };
    flow.last_seen_and_scale = Flow::<V4>::last_seen_word(0, CoarseTime(number));
    flow
}

/// Returns true if a copy of the addresses after the rewriting is whole, and belongs to the entry with this number.
pub(crate) fn is_whole(translated: [u32; 2], number: u32) -> bool {
    translated == [1_000 + number, 2_000 + number]
}
