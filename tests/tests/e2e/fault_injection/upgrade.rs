//! Upgrades from layout 7 of the maps.

use std::{fs, os::fd::AsFd as _, path::Path};

use aya::maps::{MapData, MapInfo};
use gateway::bpf::mapping::ArrayMapping;
use gateway_common::{
    V4,
    flow::{Bucket, CoarseTime, Control, Direction, FlowEntry},
    maps::LAYOUT_VERSION,
};
use tests::net::{topology::Testbed, wait};

use crate::{
    echo::{EchoSession, start_echo_servers},
    restart::flows,
};

/// Rewrites the entries of a pinned flow table as a program of layout 7 would have written them.
fn rewrite_as_layout_7(path: &Path) {
    let buckets = MapInfo::from_pin(path).expect("a map").max_entries();
    let map = MapData::from_pin(path).expect("a map");
    let table = ArrayMapping::<Bucket<V4>>::new(map.fd().as_fd(), buckets).expect("a mapping");
    for index in 0..buckets {
        let mut bucket = table.read(index).expect("a bucket");
        for place in &mut bucket.places {
            rewrite_entry(place);
        }
        let element = table.element(index).expect("a bucket");
        // SAFETY: in the mapping, and no program uses the table any more.
        unsafe { element.write(bucket) };
    }
}

fn rewrite_entry(entry: &mut FlowEntry<V4>) {
    const VERSION: u32 = 77 << 8;
    let control = entry.control;
    let flags = u32::from(control.flags_seen().0 & 0x1f);
    let is_to_service = entry.flow.direction() == Direction::ToService;
    if is_to_service {
        let created = entry.flow.created_at(CoarseTime(u32::MAX >> 4)).0;
        entry.flow.mac_or_created_at = [0; 3];
        entry.flow.mac_or_created_at[0] = u16::try_from(created & 0xffff).expect("16 bits");
        entry.flow.mac_or_created_at[1] = u16::try_from(created >> 16).expect("16 bits");
    }
    entry.control = Control::from_bits(VERSION | flags << 3 | control.state() as u32);
    // The fields had each other's place.
    let flow = &mut entry.flow;
    std::mem::swap(&mut flow.egress_and_flags, &mut flow.l4_csum_delta);
}

#[test]
fn flows_survive_an_upgrade_from_layout_7() {
    let mut testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    let session = EchoSession::start(&testbed.a);
    session.expect_progress();
    let before = flows(&testbed.agent);
    testbed.agent.stop();
    let pinned = testbed.agent.bpf_directory().to_owned();
    // The present program must not see the entries of the former one, so it is detached. TCP sends again.
    fs::remove_dir_all(pinned.join("links")).expect("pinned links");
    let earlier = pinned.join("maps-v7");
    fs::rename(pinned.join(format!("maps-v{LAYOUT_VERSION}")), &earlier).expect("a directory");
    rewrite_as_layout_7(&earlier.join("FLOWS_V4"));
    // A map that the earlier version lacks.
    fs::remove_file(earlier.join("DROPS")).expect("a pin");
    testbed.agent.restart();
    session.expect_progress();
    let log = testbed.agent.log();
    for line in [
        "bpf maps: taken over layout=7",
        "flow table: flows migrated",
    ] {
        assert!(log.contains(line), "{log}");
    }
    assert!(!earlier.exists());
    let maps = pinned.join(format!("maps-v{LAYOUT_VERSION}"));
    assert!(!maps.join("FLOWS_V4_layout7").exists());
    assert_eq!(flows(&testbed.agent), before);
    // The maps are the new program's: a revocation reaches the flow.
    testbed.agent.cli("connection reject a/web");
    wait::until_true("the rejected connection's flow to end", || {
        session.has_failed()
    });
}
