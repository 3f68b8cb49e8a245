//! Expiry: flows that the agent did not remove. The native clock is set, so these tests run natively only.

use gateway_common::{
    flow::{CLOSED_TICKS, Direction, FlowTableUsage, PlaceState},
    verdict::Verdict,
};
use tests::{
    datapath::differential::{
        CLIENT, Connection, DifferentialHarness, ENDPOINT, HTTPS, Side, tcp, with_sized_harness,
    },
    packet::flag::RST,
};

use super::{connect_native, native_entries, pass_ticks, timeouts};

const BUCKETS: u32 = 16;

/// Ticks by which the sweep is later than the timeouts.
const SWEEP_GRACE: u32 = 8;

/// Returns the client ports of the flows in a state.
fn client_ports(harness: &mut DifferentialHarness, state: PlaceState) -> Vec<u16> {
    let entries = harness.native_maps().flows_v4.entries();
    entries
        .iter()
        .filter(|(control, _, flow)| control.is(state) && flow.direction() == Direction::ToService)
        .map(|(_, key, _)| key.ports.source().get())
        .collect()
}

/// Sweeps the whole table: opens a flow after the table was not swept for long.
fn sweep(harness: &mut DifferentialHarness, port: u16) {
    let maps = harness.native_maps();
    let usage = maps.flow_table_usage.get(0);
    maps.flow_table_usage
        .set(0, FlowTableUsage { swept: 0, ..usage });
    let verdict = harness.send_native(Side::A, &tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1));
    assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
}

fn touch(harness: &mut DifferentialHarness, flow: &Connection) {
    harness
        .run_native(Side::A, &flow.client_ack())
        .expect_forwarded(Side::Provider);
}

#[test]
fn a_syn_opens_a_new_flow_where_an_established_one_has_expired() {
    with_sized_harness(0, BUCKETS, |harness| {
        let flow = connect_native(harness, 40_000, 1_000);
        let ticks = timeouts(harness).tcp_established;
        let syn = tcp(flow.client, flow.endpoint).syn(90_000);
        pass_ticks(harness, ticks - 1);
        harness
            .run_native(Side::A, &syn)
            .expect_forwarded(Side::Provider)
            .expect_sockets(flow.nat, flow.backend);
        assert_eq!(client_ports(harness, PlaceState::Established), [40_000]);
        pass_ticks(harness, ticks);
        harness
            .run_native(Side::A, &syn)
            .expect_forwarded(Side::Provider);
        assert_eq!(client_ports(harness, PlaceState::Established), [0; 0]);
        assert_eq!(client_ports(harness, PlaceState::HalfOpen), [40_000]);
        assert_eq!(
            harness
                .native_maps()
                .flow_table_usage
                .get(0)
                .established
                .get(),
            0
        );
    });
}

#[test]
fn a_segment_keeps_an_expired_flow_that_is_still_there() {
    with_sized_harness(0, BUCKETS, |harness| {
        let flow = connect_native(harness, 40_000, 1_000);
        let ticks = timeouts(harness).tcp_established;
        pass_ticks(harness, ticks + 100);
        touch(harness, &flow);
        let syn = tcp(flow.client, flow.endpoint).syn(90_000);
        harness
            .run_native(Side::A, &syn)
            .expect_forwarded(Side::Provider);
        assert_eq!(client_ports(harness, PlaceState::Established), [40_000]);
    });
}

#[test]
fn the_sweep_removes_flows_that_expired_before_its_grace_and_no_others() {
    with_sized_harness(0, BUCKETS, |harness| {
        let old = connect_native(harness, 40_000, 1_000);
        let young = connect_native(harness, 40_001, 1_000);
        let answered = connect_native(harness, 40_002, 1_000);
        let ticks = timeouts(harness).tcp_established;
        pass_ticks(harness, ticks - CLOSED_TICKS);
        touch(harness, &young);
        // A packet of the other direction counts as well.
        harness
            .run_native(Side::Provider, &answered.backend_ack())
            .expect_forwarded(Side::A);
        let closed = connect_native(harness, 40_003, 1_000);
        harness.run_native(Side::A, &closed.client_ack().add_flags(RST));
        pass_ticks(harness, CLOSED_TICKS + SWEEP_GRACE - 1);
        sweep(harness, 50_000);
        assert_eq!(
            client_ports(harness, PlaceState::Established),
            [old.client.1, young.client.1, answered.client.1]
        );
        assert_eq!(client_ports(harness, PlaceState::Closed), [40_003]);
        pass_ticks(harness, 1);
        sweep(harness, 50_001);
        assert_eq!(
            client_ports(harness, PlaceState::Established),
            [young.client.1, answered.client.1]
        );
        // The other entries are gone too, and the counts go down.
        assert_eq!(native_entries(harness, PlaceState::Established), 4);
        assert_eq!(native_entries(harness, PlaceState::Closed), 0);
        assert_eq!(
            harness
                .native_maps()
                .flow_table_usage
                .get(0)
                .established
                .get(),
            2
        );
    });
}

#[test]
fn a_table_is_swept_in_steps_by_the_flows_that_are_opened() {
    with_sized_harness(0, 256, |harness| {
        for port in 40_000..40_040 {
            connect_native(harness, port, 1_000);
        }
        let ticks = timeouts(harness).tcp_established;
        pass_ticks(harness, ticks + SWEEP_GRACE);
        // One flow a tick sweeps a 64th of the table each.
        let now = u64::from(harness.native_maps().now.0);
        let usage = harness.native_maps().flow_table_usage.get(0);
        let swept = FlowTableUsage {
            swept: now * 5,
            ..usage
        };
        harness.native_maps().flow_table_usage.set(0, swept);
        let mut left = Vec::new();
        for port in 50_000..50_064 {
            pass_ticks(harness, 1);
            harness.send_native(Side::A, &tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1));
            left.push(client_ports(harness, PlaceState::Established).len());
        }
        assert!(
            left.is_sorted_by(|earlier, later| earlier >= later),
            "{left:?}"
        );
        // Four steps sweep 20 of 256 buckets, and a flow is removed with the first of its two entries. So six flows of
        // forty are expected to be gone, wherever the secret hash has put them.
        assert!(left[3] > 20 && left[63] == 0, "{left:?}");
    });
}
