//! The fuzzer's target: a sequence of frames through the native data path, with invariants that hold for any input.
//!
//! The packet tests send the sequences in `fuzz/corpus` through both platforms.
//!
//! A sequence is a list of records: one byte for the side (modulo 4), two bytes for the length (big-endian), and the
//! frame. A last record may be shorter than its length.

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

/// Maximum length of a frame, in bytes. Longer ones are skipped.
pub const MAX_FRAME_LEN: usize = 2_048;

/// Returns the frames of a sequence, each with the side that receives it.
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

/// Encodes a frame as a record.
///
/// # Panics
/// Panics if it is longer than a record can say.
#[must_use]
pub fn encode_record(side: Side, frame: &[u8]) -> Vec<u8> {
    let length = u16::try_from(frame.len()).expect("a frame");
    let mut record = vec![side as u8];
    record.extend(length.to_be_bytes());
    record.extend(frame);
    record
}

/// Returns native maps with the configuration and without flows.
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

/// Sends a sequence through the native data path, and returns the number of frames.
///
/// # Panics
/// Panics if an invariant is violated.
pub fn run(data: &[u8]) -> usize {
    thread_local! {
        static CONTENTS: MapSnapshot = configuration();
    }
    CONTENTS.with(|contents| {
        let mut maps = empty_maps(contents);
        let frames = frames(data);
        for (side, frame) in &frames {
            check(contents, &mut maps, *side, frame);
        }
        frames.len()
    })
}

fn check(contents: &MapSnapshot, maps: &mut SimMaps, side: Side, frame: &[u8]) {
    let ifindex = side as u32 + 1;
    let counted = |maps: &SimMaps| maps.drops.values().sum::<u64>();
    let before = counted(maps);
    let (verdict, after) = fast_path_oracle::process_on_both_paths(maps, ifindex, frame);
    let drops = counted(maps) - before;
    let expected = match verdict {
        Verdict::Drop(..) | Verdict::TcpReset(..) | Verdict::IcmpError(..) => 1,
        Verdict::Pass | Verdict::Reply | Verdict::Redirect(_) => 0,
    };
    assert_eq!(
        drops, expected,
        "{verdict:?} is counted {drops} times as a drop"
    );
    match verdict {
        Verdict::Pass => assert_eq!(after, frame, "a passed frame was changed"),
        Verdict::Redirect(slot) => {
            let network = |ifindex| contents.attachments.get(&ifindex).map(|a| a.network);
            let from = network(ifindex);
            let to = contents.egress.get(&slot).map(|egress| egress.network);
            let provider = network(Side::Provider as u32 + 1);
            assert!(
                from != to && to.is_some(),
                "redirected into its own network, or to no network"
            );
            assert!(
                from == provider || to == provider,
                "forwarded from a consumer to a consumer"
            );
            check_output_checksums(&verdict, frame, &after);
        }
        // The gateway builds these packets itself, so their checksums are right whatever was received.
        Verdict::TcpReset(..) | Verdict::IcmpError(..) => {
            Packet::parse(&after)
                .unwrap_or_else(|error| panic!("{verdict:?}: {error}: {after:02x?}"));
        }
        Verdict::Reply | Verdict::Drop(..) => {}
    }
    assert!(
        after.len() <= frame.len() + 128,
        "the frame grew to {} bytes",
        after.len()
    );
}

/// Checks that a packet received with right checksums is forwarded with right checksums.
fn check_output_checksums(verdict: &Verdict, frame: &[u8], after: &[u8]) {
    if Packet::parse(frame).is_ok()
        && let Err(error) = Packet::parse(after)
    {
        panic!("{verdict:?}: {error}\n{frame:02x?}\n{after:02x?}");
    }
}
