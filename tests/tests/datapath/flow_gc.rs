//! Garbage collection of a full flow table.

use std::time::Instant;

use gateway::{
    agent::flow_gc::FlowGc,
    bpf::{flow_tables::HasFlowTable as _, maps},
};
use gateway_common::{
    Be16, Be32, V4,
    flow::{
        Control, Direction, Flow, FlowKey, NetworkProto, PlaceState, TcpFlagsSeen,
        memory::Place as _,
    },
    packet::PortPair,
};
use tests::datapath::differential::{DifferentialHarness, with_sized_harness};

/// Number of flows, with two entries each, which the table is made for.
const FLOWS: u32 = 1 << 19;

/// Returns the two entries of a flow that has been idle for so many ticks.
fn pair(number: u32, idle: u32) -> [(FlowKey<V4>, Flow<V4>); 2] {
    let [_, high, middle, low] = number.to_be_bytes();
    let port = Be16::new(1_024 + u16::from_be_bytes([middle, low]) % 64_000);
    let client = Be32::new(u32::from_be_bytes([10, high, middle, low]));
    let (endpoint, backend) = (Be32::new(0x0a00_0064), Be32::new(0x0a01_000a));
    let nat = Be32::new(0x0b00_0000 | number);
    let key = FlowKey::<V4> {
        network_proto: NetworkProto::new(1, 6),
        source: client,
        destination: endpoint,
        ports: PortPair::new(port, Be16::new(443)),
    };
    let mut flow = Flow::<V4> {
        source: nat,
        destination: backend,
        ports: PortPair::new(port, Be16::new(8_443)),
        last_seen_and_scale: maps::now().0.saturating_sub(idle),
        ..Flow::default()
    };
    flow.set_direction(Direction::ToService, 0, false);
    let reverse_key = FlowKey::<V4> {
        network_proto: NetworkProto::new(2, 6),
        source: backend,
        destination: nat,
        ports: flow.ports.swapped(),
    };
    let mut reverse = Flow::<V4> {
        source: endpoint,
        destination: client,
        ports: PortPair::new(Be16::new(443), port),
        ..flow
    };
    reverse.set_direction(Direction::ToConsumer, 0, false);
    [(key, flow), (reverse_key, reverse)]
}

/// Fills the table with established flows. Returns the number of those for which there was no place.
fn fill(harness: &DifferentialHarness, idle: u32) -> u32 {
    let table = V4::flow_table(harness.flow_tables());
    let open = TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK);
    let control = Control::NEVER_USED
        .with_state(PlaceState::Established)
        .with_flags(open);
    let mut lost = 0;
    for number in 0..FLOWS {
        let [(key, flow), (reverse_key, reverse)] = pair(number, idle);
        let Ok(forward) = table.insert(&key, &flow, control) else {
            lost += 1;
            continue;
        };
        match table.insert(&reverse_key, &reverse, control) {
            Ok(reverse) => {
                forward.place.set_peer(reverse.index);
                reverse.place.set_peer(forward.index);
            }
            Err(_) => {
                harness.flow_tables().remove(forward);
                lost += 1;
            }
        }
    }
    lost
}

#[test]
fn flow_gc_scans_a_full_table_in_a_fraction_of_a_second() {
    with_sized_harness(0, FLOWS, |harness| {
        let lost = fill(harness, 1_000);
        // With half of the places in use, two buckets of four are hardly ever full.
        assert!(lost <= FLOWS / 10_000, "{lost} of {FLOWS} flows lost");
        let tables = harness.flow_tables();
        let mut gc = FlowGc::new(tables.clone());
        // The flows belong to no connection, and have been idle for long.
        let start = Instant::now();
        let removed = gc.collect().removed;
        println!(
            "{removed} entries scanned and removed in {:?}",
            start.elapsed()
        );
        assert_eq!(removed, 2 * (FLOWS - lost) as usize);
        let start = Instant::now();
        assert_eq!(gc.collect().removed, 0);
        println!("an empty table scanned in {:?}", start.elapsed());
        assert_eq!(V4::flow_table(tables).entries(0).count(), 0);
    });
}
