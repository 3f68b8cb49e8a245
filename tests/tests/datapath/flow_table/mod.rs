//! The flow table: which flows get a place and a source port, which lose theirs, and what is counted.

mod close;
mod counts;
mod expiry;
mod hammer;
mod places;
mod ports;
mod share;
mod survival;

use gateway_common::{
    Be16, V4,
    drop_reason::{Attribution, DropReason},
    flow::{
        CoarseTime, FlowKey, FlowTimeouts, NetworkProto, PlaceState,
        hash::{bucket_index, derive_hash_keys, hash_key},
    },
    packet::PortPair,
    verdict::Verdict,
};
use tests::datapath::differential::{
    BACKEND_MAC, CLIENT, Connection, DifferentialHarness, ENDPOINT, HTTPS, SEED, Side, tcp,
};

/// Returns the numbers of half-open, established and closed flows.
#[track_caller]
fn states(harness: &DifferentialHarness) -> (usize, usize, usize) {
    (
        harness.flows(PlaceState::HalfOpen),
        harness.flows(PlaceState::Established),
        harness.flows(PlaceState::Closed),
    )
}

/// Returns the flow key of a client's segments to the web service's endpoint in network A.
fn client_key(harness: &DifferentialHarness, client_port: u16) -> FlowKey<V4> {
    let attachments = &harness.contents().attachments;
    let network = attachments[&harness.ifindex(Side::A)].network;
    FlowKey {
        network_proto: NetworkProto::new(network, 6),
        source: CLIENT.into(),
        destination: ENDPOINT.into(),
        ports: PortPair::new(Be16::new(client_port), Be16::new(HTTPS)),
    }
}

/// Returns both buckets of a key, in a table of `count` buckets.
fn buckets_of(key: &FlowKey<V4>, count: u32) -> [u32; 2] {
    let keys = derive_hash_keys(SEED);
    let hash = hash_key(key, |index| keys[index]);
    [0, 1].map(|choice| bucket_index(hash, choice, count))
}

/// Returns client ports whose flows lie in the same two buckets of a table of `count` buckets, and in no other.
fn crowded_ports(harness: &DifferentialHarness, count: u32) -> impl Iterator<Item = u16> + use<> {
    let buckets = |port| buckets_of(&client_key(harness, port), count);
    let two = (10_000..)
        .map(buckets)
        .find(|[first, second]| first != second)
        .expect("keys with two buckets");
    let ports: Vec<u16> = (10_000..u16::MAX)
        .filter(|port| buckets(*port).iter().all(|bucket| two.contains(bucket)))
        .collect();
    ports.into_iter()
}

/// Sends the SYN of a client of A through both platforms.
#[track_caller]
fn send_syn(
    harness: &mut DifferentialHarness,
    client_port: u16,
    sequence: u32,
) -> tests::datapath::differential::PacketResult {
    let syn = tcp((CLIENT, client_port), (ENDPOINT, HTTPS)).syn(sequence);
    harness.send(Side::A, &syn)
}

/// Establishes a connection of A's client on the native platform.
#[track_caller]
fn connect_native(
    harness: &mut DifferentialHarness,
    client_port: u16,
    sequence: u32,
) -> Connection {
    let (client, endpoint) = ((CLIENT, client_port), (ENDPOINT, HTTPS));
    let syn = harness.run_native(Side::A, &tcp(client, endpoint).syn(sequence));
    let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
    let connection = Connection {
        client,
        endpoint,
        nat,
        backend,
    };
    let answer = tcp(backend, nat)
        .with_source_mac(BACKEND_MAC)
        .syn_ack(5_000, sequence + 1);
    harness
        .run_native(Side::Provider, &answer)
        .expect_forwarded(Side::A);
    let ack = tcp(client, endpoint).ack(sequence + 1, 5_001);
    harness
        .run_native(Side::A, &ack)
        .expect_forwarded(Side::Provider);
    connection
}

/// Expects that a native packet was dropped for this reason.
#[track_caller]
fn expect_native_drop(verdict: Verdict, expected: DropReason) {
    assert!(
        matches!(verdict, Verdict::Drop(Attribution { reason, .. }) if reason == expected),
        "{verdict:?}, not dropped for {expected:?}"
    );
}

/// Returns the number of native IPv4 entries in a state.
fn native_entries(harness: &mut DifferentialHarness, state: PlaceState) -> usize {
    let entries = harness.native_maps().flows_v4.entries();
    entries
        .iter()
        .filter(|(control, ..)| control.is(state))
        .count()
}

/// Returns the timeouts of all connections of the fixture.
fn timeouts(harness: &mut DifferentialHarness) -> FlowTimeouts {
    let mut connections = harness.native_maps().connections.values();
    let approved = connections.find(|connection| connection.generation != 0);
    approved.expect("an approved connection").timeouts
}

/// Moves the native clock on.
fn pass_ticks(harness: &mut DifferentialHarness, ticks: u32) {
    let now = &mut harness.native_maps().now;
    *now = CoarseTime(now.0 + ticks);
}
