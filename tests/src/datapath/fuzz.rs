//! What the fuzzer runs: a sequence of frames through the native stages, and what must hold whatever
//! they are. The same sequences, kept in `fuzz/corpus`, go through both worlds in the packet tests.
//!
//! A sequence is a list of records: a byte for the side (by its remainder to 4), two for the length,
//! big-endian, and the frame. What is left at the end is a last frame.

use std::collections::BTreeMap;

use gateway::compile::map_snapshot::MapSnapshot;
use gateway_common::{Verdict, sim::SimMaps};

use crate::{
    datapath::{
        differential::{SEED, Side, configuration},
        fast_path_oracle,
    },
    packet::Packet,
};

/// The longest frame of a sequence, in bytes.
pub const MAX_FRAME_LEN: usize = 2_048;

/// The frames of a sequence, and where they come in.
#[must_use]
pub fn frames(mut data: &[u8]) -> Vec<(Side, &[u8])> {
    let mut frames = Vec::new();
    while let [side, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (frame, others) = rest.split_at(length);
        frames.push((Side::ALL[usize::from(*side) % 4], frame));
        data = others;
    }
    frames.retain(|(_, frame)| (15..=MAX_FRAME_LEN).contains(&frame.len()));
    frames
}

/// A frame as a record.
///
/// # Panics
/// When it is longer than a record can say.
#[must_use]
pub fn encode_record(side: Side, frame: &[u8]) -> Vec<u8> {
    let length = u16::try_from(frame.len()).expect("a frame");
    let mut record = vec![side as u8];
    record.extend(length.to_be_bytes());
    record.extend(frame);
    record
}

/// The configuration's world, with nothing in its tables.
fn empty_maps(contents: &MapSnapshot) -> SimMaps {
    SimMaps {
        hash_seed: SEED,
        attachments: copy(&contents.attachments),
        egress: copy(&contents.egress),
        addresses: contents.addresses.iter().map(|(k, v)| (*k, *v)).collect(),
        ports: contents.ports.iter().map(|(k, v)| (*k, *v)).collect(),
        maglev: copy(&contents.maglev),
        backends: copy(&contents.backends),
        nat_addresses: copy(&contents.nat_addresses),
        connections: copy(&contents.connections),
        limits: copy(&contents.limits),
        ..SimMaps::default()
    }
}

fn copy<T: Copy>(map: &BTreeMap<u32, T>) -> std::collections::HashMap<u32, T> {
    map.iter().map(|(key, value)| (*key, *value)).collect()
}

/// Sends a sequence through the stages; says how many frames there were.
///
/// # Panics
/// When something does not hold that must.
pub fn run(data: &[u8]) -> usize {
    thread_local! {
        static CONTENTS: MapSnapshot = configuration();
    }
    CONTENTS.with(|contents| {
        let mut world = empty_maps(contents);
        let frames = frames(data);
        for (side, frame) in &frames {
            check(contents, &mut world, *side, frame);
        }
        frames.len()
    })
}

fn check(contents: &MapSnapshot, world: &mut SimMaps, side: Side, frame: &[u8]) {
    let ifindex = side as u32 + 1;
    let counted = |world: &SimMaps| world.drops.values().sum::<u64>();
    let before = counted(world);
    let (verdict, after) = fast_path_oracle::process_on_both_paths(world, ifindex, frame);
    let drops = counted(world) - before;
    let wanted = match verdict {
        Verdict::Drop(..) | Verdict::TcpReset(..) | Verdict::IcmpError(..) => 1,
        Verdict::Pass | Verdict::Reply | Verdict::Redirect(_) => 0,
    };
    assert_eq!(drops, wanted, "{verdict:?} is counted {drops} times");
    match verdict {
        Verdict::Pass => assert_eq!(after, frame, "what passes is untouched"),
        Verdict::Redirect(slot) => {
            let network = |ifindex| contents.attachments.get(&ifindex).map(|a| a.network);
            let from = network(ifindex);
            let to = contents.egress.get(&slot).map(|egress| egress.network);
            let provider = network(Side::Provider as u32 + 1);
            assert!(from != to && to.is_some(), "it goes back, or nowhere");
            assert!(
                from == provider || to == provider,
                "from consumer to consumer"
            );
            check_output_checksums(&verdict, frame, &after);
        }
        // They are the gateway's own: whatever came in.
        Verdict::TcpReset(..) | Verdict::IcmpError(..) => {
            Packet::parse(&after)
                .unwrap_or_else(|error| panic!("{verdict:?}: {error}: {after:02x?}"));
        }
        Verdict::Reply | Verdict::Drop(..) => {}
    }
    assert!(
        after.len() <= frame.len() + 128,
        "it grew to {}",
        after.len()
    );
}

/// What came in with its checksums right leaves with its checksums right.
fn check_output_checksums(verdict: &Verdict, frame: &[u8], after: &[u8]) {
    if Packet::parse(frame).is_ok()
        && let Err(error) = Packet::parse(after)
    {
        panic!("{verdict:?}: {error}\n{frame:02x?}\n{after:02x?}");
    }
}
