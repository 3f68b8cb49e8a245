//! Garbage collection of a full flow table.

use std::time::Instant;

use gateway::{
    agent::flow_gc::{FlowGc, GcSnapshot},
    bpf::{flow_tables::FlowTableSet, maps},
};
use gateway_common::{
    Be16, Be32, V4,
    flow::{Direction, Flow, FlowKey, NetworkProto, Table, TcpFlagsSeen},
    packet::PortPair,
};
use tests::datapath::differential::with_harness;

/// Number of flows that fill the table of established ones, with two entries each.
const FLOWS: u32 = 1 << 19;

/// Returns the two entries of a flow.
fn pair(number: u32) -> [(FlowKey<V4>, Flow<V4>); 2] {
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
    let now = maps::now().0;
    let flow = Flow::<V4> {
        source: nat,
        destination: backend,
        ports: PortPair::new(port, Be16::new(8_443)),
        network: 2,
        direction: Direction::ToService as u8,
        tcp_flags_seen: TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK).0,
        last_seen: now.saturating_sub(1_000),
        ..Flow::default()
    };
    let reverse = Flow::<V4> {
        source: endpoint,
        destination: client,
        ports: PortPair::new(Be16::new(443), port),
        network: 1,
        direction: Direction::ToConsumer as u8,
        ..flow
    };
    [(key, flow), (flow.reverse_key(6), reverse)]
}

#[test]
fn flow_gc_scans_a_full_table_in_seconds() {
    with_harness(|harness| {
        let tables = harness.flow_tables();
        for number in 0..FLOWS {
            for (key, flow) in pair(number) {
                tables
                    .insert(Table::Established, &key, &flow)
                    .expect("room");
            }
        }
        let mut sweeper = FlowGc::new(harness.flow_tables());
        // The flows belong to no connection, and have been idle for long.
        let snapshot = GcSnapshot::empty();
        let start = Instant::now();
        let swept = sweeper.collect(&snapshot).expect("a sweep");
        let took = start.elapsed();
        println!(
            "{} entries gone through and removed in {took:?}",
            swept.removed
        );
        assert_eq!(swept.removed, 2 * FLOWS as usize);
        let start = Instant::now();
        assert_eq!(sweeper.collect(&snapshot).expect("a sweep").removed, 0);
        println!("an empty one in {:?}", start.elapsed());
        let mut left = 0;
        let count = |_: &FlowKey<V4>, _: &Flow<V4>| left += 1;
        FlowTableSet::for_each(&tables, Table::Established, count).expect("the flows");
        assert_eq!(left, 0);
    });
}
