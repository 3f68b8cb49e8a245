//! Many established flows, inserted into the flow table without packets.

use gateway::bpf::flow_tables::{FlowTable, HasFlowTable as _};
use gateway_common::{
    Be16, Be32, V4,
    flow::{CoarseTime, Flow, FlowKey, FlowRef, PlaceState, memory::Place as _},
    packet::PortPair,
};
use tests::datapath::differential::DifferentialHarness;

use crate::wrapper::varied;

/// Maximum number of flows.
pub(crate) const MAX_FLOWS: u32 = 1 << 19;

/// Inserts this many established TCP flows of A's client, each with both entries. They are copies of a flow that packets
/// have opened, with the clients of [`varied`]. Returns the number of flows for which there was no place.
pub(crate) fn fill(harness: &mut DifferentialHarness, flows: u32, last_seen: CoarseTime) -> u32 {
    harness.connect(40_000);
    let table = V4::flow_table(harness.flow_tables());
    let model = table
        .entries(0)
        .find(|found| found.key().ports.source().get() == 40_000);
    let model = model.expect("the flow that was opened");
    let peer = table.peer(&model).expect("its other direction");
    let lost = (0..flows).filter(|number| !insert_copy(table, [&model, &peer], *number, last_seen));
    u32::try_from(lost.count()).expect("at most all")
}

/// Inserts both entries of a flow. Returns false if there is no place for one of them.
fn insert_copy(
    table: &FlowTable<V4>,
    [model, model_peer]: [&FlowRef<V4>; 2],
    number: u32,
    last_seen: CoarseTime,
) -> bool {
    let (host, port) = varied(number);
    let port = Be16::from_raw(port);
    let (mut key, mut flow) = (*model.key(), *model.entry());
    key.source = with_host(key.source, host);
    key.ports = PortPair::new(port, key.ports.destination());
    flow.source = with_host(flow.source, host);
    flow.ports = PortPair::new(port, flow.ports.destination());
    flow.last_seen_and_scale = Flow::<V4>::last_seen_word(flow.last_seen_and_scale, last_seen);
    flow.compute_checksum_delta(&key);
    let mut reverse = *model_peer.entry();
    let reverse_key = FlowKey::<V4> {
        destination: flow.source,
        ports: flow.ports.swapped(),
        ..*model_peer.key()
    };
    reverse.destination = key.source;
    reverse.ports = key.ports.swapped();
    reverse.last_seen_and_scale = flow.last_seen_and_scale;
    reverse.compute_checksum_delta(&reverse_key);
    let Ok(mut to_service) = table.insert(&key, &flow, model.control) else {
        return false;
    };
    let Ok(to_consumer) = table.insert(&reverse_key, &reverse, model_peer.control) else {
        to_service.remove();
        return false;
    };
    to_service.place.set_peer(to_consumer.index);
    to_consumer.place.set_peer(to_service.index);
    debug_assert!(to_service.control.is(PlaceState::Established));
    true
}

/// Returns an address with other last two bytes, given in memory order.
fn with_host(address: Be32, host: u16) -> Be32 {
    let [first, second, ..] = address.raw().to_ne_bytes();
    let [third, fourth] = host.to_ne_bytes();
    Be32::from_raw(u32::from_ne_bytes([first, second, third, fourth]))
}
