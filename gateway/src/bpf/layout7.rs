//! Flow entries of layout 7, and their conversion to the present layout.
//!
//! In layout 7 the control word had no pin and one flag less. An entry had the egress slot before the checksum delta, and
//! in the direction of the service the whole time of its creation where it now has the digest of a MAC address as well.

use gateway_common::{
    Family,
    flow::{Bucket, CoarseTime, Control, Direction, FlowEntry, PlaceState, TcpFlagsSeen},
};

const STATE_MASK: u32 = 7;
const FLAGS_SHIFT: u32 = 3;
const FLAGS_MASK: u8 = 0x1f;
const VERSION_SHIFT: u32 = 8;

/// Converts a bucket that was read twice. Half-open flows are left out: the meaning of their acknowledgement numbers has
/// changed, and their first packet is sent again. So are entries that were replaced between the two reads, whose parts may
/// be of different flows.
pub(super) fn convert_bucket<F: Family>(mut bucket: Bucket<F>, again: Bucket<F>) -> Bucket<F> {
    for (place, again) in bucket.places.iter_mut().zip(again.places) {
        let version = |entry: &FlowEntry<F>| entry.control.to_bits() >> VERSION_SHIFT;
        *place = if version(place) == version(&again) {
            convert_entry(*place)
        } else {
            FlowEntry::default()
        };
    }
    bucket
}

/// Converts the entry of a place. The digest of the client's MAC address stays empty, so the flow's next packet takes the
/// slow path, which sets it.
fn convert_entry<F: Family>(entry: FlowEntry<F>) -> FlowEntry<F> {
    let word = entry.control.to_bits();
    let state = Control::from_bits(word & STATE_MASK).state();
    if !matches!(
        state,
        PlaceState::Established | PlaceState::FinUnacked | PlaceState::Closed
    ) {
        return FlowEntry::default();
    }
    let [flags, ..] = (word >> FLAGS_SHIFT).to_le_bytes();
    let control = Control::NEVER_USED
        .with_state(state)
        .with_flags(TcpFlagsSeen(flags & FLAGS_MASK));
    let mut flow = entry.flow;
    std::mem::swap(&mut flow.egress_and_flags, &mut flow.l4_csum_delta);
    if flow.direction() == Direction::ToService {
        let [low, high, _] = flow.mac_or_created_at;
        flow.mac_or_created_at = [0; 3];
        flow.set_created_at(CoarseTime(u32::from(low) | u32::from(high) << 16));
    }
    FlowEntry {
        control,
        key: entry.key,
        flow,
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::{V4, packet::Mac};

    use super::*;

    /// Entry as layout 7 had it, as the words behind its key.
    fn entry(state: u32, flags: u32, egress_and_flags: u16, last: [u16; 3]) -> FlowEntry<V4> {
        let mut entry = FlowEntry::<V4> {
            control: Control::from_bits(77 << 8 | flags << FLAGS_SHIFT | state),
            ..FlowEntry::default()
        };
        entry.flow.backend_slot = 5;
        // The present fields at the places of the former ones.
        entry.flow.l4_csum_delta = egress_and_flags;
        entry.flow.egress_and_flags = 0xabcd;
        entry.flow.mac_or_created_at = last;
        entry
    }

    #[test]
    fn confirmed_entries_keep_what_packets_need() {
        let mac = Mac::new([2, 3, 4, 5, 6, 7]);
        let former = entry(4, 0x12, 1 << 14 | 9, mac.words());
        let present = convert_entry(former);
        assert!(present.control.is(PlaceState::Established) && !present.control.is_pinned());
        assert_eq!(present.control.flags_seen(), TcpFlagsSeen(0x12));
        assert_eq!(present.flow.direction(), Direction::ToConsumer);
        assert_eq!(present.flow.egress_slot(), 9);
        assert_eq!(present.flow.l4_csum_delta, 0xabcd);
        assert_eq!(present.flow.mac_or_created_at, mac.words());
        assert_eq!(present.flow.backend_slot, 5);
    }

    #[test]
    fn entries_towards_the_service_keep_their_time_of_creation() {
        let created = CoarseTime(0x0123_4560);
        let former = entry(5, 0, 0, [0x4560, 0x0123, 0]);
        let present = convert_entry(former);
        assert!(present.control.is(PlaceState::FinUnacked));
        assert_eq!(present.flow.created_at(created), created);
    }

    #[test]
    fn free_and_half_open_places_become_free() {
        for state in 0..4 {
            let present = convert_entry(entry(state, 0x1f, 0, [1; 3]));
            assert!(present.control.is(PlaceState::Free), "{state}");
        }
    }
}
