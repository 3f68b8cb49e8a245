//! Shares of the flow table: no endpoint's established flows use it up.

use gateway_common::{
    DropReason,
    flow::{FlowCount, FlowTableUsage},
};
use tests::datapath::differential::{
    ALL_PORTS_ENDPOINT, BACKEND_MAC, CLIENT, DifferentialHarness, ENDPOINT, HTTPS, PacketResult,
    Side, tcp, with_sized_harness,
};

use super::{connect_native, expect_native_drop, send_syn};

/// Number of flows that the tables are made for. An endpoint may have four times as many as are free.
const SIZE: u32 = 16;

/// Sends a SYN of a client of B.
#[track_caller]
fn send_syn_of_b(harness: &mut DifferentialHarness, port: u16) -> PacketResult {
    let syn = tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1_000);
    harness.send(Side::B, &syn.sent_to(Side::B))
}

/// Establishes a connection of a client of B.
#[track_caller]
fn connect_b(harness: &mut DifferentialHarness, port: u16) {
    let syn = send_syn_of_b(harness, port);
    let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
    let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC);
    harness
        .send(Side::Provider, &answer.syn_ack(5_000, 1_001))
        .expect_forwarded(Side::B);
    let ack = tcp((CLIENT, port), (ENDPOINT, HTTPS)).ack(1_001, 5_001);
    harness
        .send(Side::B, &ack.sent_to(Side::B))
        .expect_forwarded(Side::Provider);
}

#[test]
fn an_endpoint_over_its_share_opens_no_flow_and_another_does() {
    with_sized_harness(0, SIZE, |harness| {
        let flows: Vec<_> = (0..13).map(|n| harness.connect(40_000 + n)).collect();
        assert_eq!(harness.flow_table_usage().established.get(), 13);
        // Three are free: the share is twelve.
        send_syn(harness, 41_000, 1_000).expect_dropped(DropReason::FlowTableShare);
        connect_b(harness, 41_000);
        connect_b(harness, 41_001);
        // Open flows continue.
        for flow in &flows {
            harness
                .send(Side::A, &flow.client_ack())
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
        }
        connect_b(harness, 41_002);
        // The table is used up.
        send_syn_of_b(harness, 41_003).expect_dropped(DropReason::FlowTableFull);
        send_syn(harness, 41_003, 1_000).expect_dropped(DropReason::FlowTableFull);
    });
}

#[test]
fn a_share_shrinks_as_the_table_fills_and_grows_as_flows_close() {
    with_sized_harness(0, SIZE, |harness| {
        let flows: Vec<_> = (0..5).map(|n| harness.connect(40_000 + n)).collect();
        for port in 0..9 {
            send_syn(harness, 41_000, 1_000).expect_forwarded(Side::Provider);
            connect_b(harness, 42_000 + port);
        }
        // Two are free: B with nine flows is over its share of eight, and A with five is not.
        send_syn_of_b(harness, 43_000).expect_dropped(DropReason::FlowTableShare);
        send_syn(harness, 41_001, 1_000).expect_forwarded(Side::Provider);
        let (client, endpoint) = ((CLIENT, 40_000), (ALL_PORTS_ENDPOINT, 80));
        let syn = harness.send(Side::A, &tcp(client, endpoint).syn(1_000));
        let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
        let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC);
        harness.send(Side::Provider, &answer.syn_ack(5_000, 1_001));
        harness.send(Side::A, &tcp(client, endpoint).ack(1_001, 5_001));
        assert_eq!(harness.flow_table_usage().established.get(), 15);
        // One is free, so the share is four.
        send_syn(harness, 41_002, 1_000).expect_dropped(DropReason::FlowTableShare);
        let other = harness.send(
            Side::A,
            &tcp((CLIENT, 40_001), (ALL_PORTS_ENDPOINT, 80)).syn(1_000),
        );
        other.expect_forwarded(Side::Provider);
        // Closed flows do not count.
        let reset = tests::packet::flag::RST;
        harness.send(Side::A, &flows[0].client_ack().add_flags(reset));
        send_syn(harness, 41_002, 1_000).expect_forwarded(Side::Provider);
    });
}

#[test]
fn flows_that_were_half_open_together_do_not_exceed_the_share() {
    with_sized_harness(0, SIZE, |harness| {
        // None is established, so all SYNs are admitted.
        let mut opened = Vec::new();
        for port in 40_000..40_020 {
            let syn = send_syn(harness, port, 1_000);
            opened.push((port, syn.expect_forwarded(Side::Provider).sockets()));
        }
        let mut established = 0;
        for (port, (nat, backend)) in opened {
            let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &answer.syn_ack(5_000, 1_001));
            let ack = tcp((CLIENT, port), (ENDPOINT, HTTPS)).ack(1_001, 5_001);
            harness.send(Side::A, &ack);
            established = harness.flow_table_usage().established.get();
        }
        assert!(
            established < u64::from(SIZE),
            "one endpoint has {established} of {SIZE} flows"
        );
        connect_b(harness, 41_000);
    });
}

#[test]
fn a_share_is_a_multiple_of_the_free_part_of_the_table() {
    with_sized_harness(0, SIZE, |harness| {
        for port in 40_000..40_004 {
            connect_native(harness, port, 1_000);
        }
        let syn = tcp((CLIENT, 41_000), (ENDPOINT, HTTPS)).syn(1_000);
        for (used, share, is_admitted) in
            [(14, 2 << 8, true), (15, 4 << 8, true), (15, 3 << 8, false)]
        {
            let usage = FlowTableUsage {
                established: FlowCount::from_bits(used),
                ..FlowTableUsage::default()
            };
            let maps = harness.native_maps();
            maps.flow_table_usage.set(0, usage);
            maps.flow_table_share = share;
            let result = harness.run_native(Side::A, &syn);
            if is_admitted {
                result.expect_forwarded(Side::Provider);
                let key = super::client_key(harness, 41_000);
                harness.native_maps().flows_v4.remove(&key);
            } else {
                expect_native_drop(result.verdict, DropReason::FlowTableShare);
            }
        }
    });
}
