//! Counts of flows: of each connection, and of each table.

use gateway::model::Decision;
use gateway_common::DropReason;
use serde_json::json;
use tests::{
    datapath::{
        differential::{DifferentialHarness, Side},
        scenario::Scenario,
    },
    packet::{
        builders::tcp_segment,
        flag::{ACK, FIN, RST},
    },
};

use crate::{ScenarioCase, run_scenarios};

/// Expects the numbers of flows and of established flows of the scenario's endpoint.
#[track_caller]
fn expect_counts(harness: &DifferentialHarness, scenario: Scenario, flows: u64, established: u64) {
    let usage = harness.usage(scenario.endpoint_name);
    assert_eq!(
        (usage.flows.get(), usage.established.get()),
        (flows, established)
    );
    // The flows of all other pairs of families lie in the table of IPv6.
    let table = harness.flow_table_usage().established.get();
    let in_v4 = scenario.is_v4() && scenario.provider_is_v4();
    assert_eq!(table, if in_v4 { established } else { 0 });
}

const CASES: &[ScenarioCase] = &[
    (
        "a flow is counted once, from its first packet to its close",
        |harness, scenario| {
            let syn = scenario.client_segment().syn(1_000);
            for _ in 0..3 {
                harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                expect_counts(harness, scenario, 1, 0);
            }
            let flow = scenario.connect(harness);
            expect_counts(harness, scenario, 1, 1);
            for _ in 0..3 {
                harness.send(Side::A, &scenario.client_ack());
                harness.send(Side::Provider, &flow.backend_ack());
                expect_counts(harness, scenario, 1, 1);
            }
            harness.send(Side::A, &scenario.client_ack().add_flags(FIN));
            let fin = flow.backend_segment().with_flags(FIN | ACK, 5_001, 1_002);
            harness.send(Side::Provider, &fin);
            expect_counts(harness, scenario, 1, 1);
            let last = scenario.client_segment().ack(1_002, 5_002);
            for _ in 0..3 {
                harness.send(Side::A, &last);
                expect_counts(harness, scenario, 0, 0);
            }
            // The next flow replaces the closed one, which is not counted any more.
            let next = scenario.client_segment().syn(90_000);
            harness
                .send(Side::A, &next)
                .expect_forwarded(Side::Provider);
            expect_counts(harness, scenario, 1, 0);
        },
    ),
    (
        "a reset flow is not counted, and a reopened one is",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            for _ in 0..2 {
                harness.send(Side::A, &scenario.client_ack().add_flags(RST));
                expect_counts(harness, scenario, 0, 0);
                harness.send(Side::Provider, &flow.backend_ack().add_flags(RST));
                expect_counts(harness, scenario, 0, 0);
            }
            for _ in 0..2 {
                harness.send(Side::A, &scenario.client_ack());
                expect_counts(harness, scenario, 1, 1);
                harness.send(Side::Provider, &flow.backend_ack());
                expect_counts(harness, scenario, 1, 1);
            }
        },
    ),
    (
        "a half-open flow that is reset is not counted",
        |harness, scenario| {
            let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            expect_counts(harness, scenario, 1, 0);
            let refusal = flow.backend_segment().with_flags(RST | ACK, 0, 1_001);
            harness.send(Side::Provider, &refusal);
            expect_counts(harness, scenario, 0, 0);
        },
    ),
    (
        "UDP flows are counted as established after the reply",
        |harness, scenario| {
            let question = scenario.client_datagram(b"question");
            let out = harness.send(Side::A, &question);
            let flow = scenario.expect_forwarded_to_service(&out, 53);
            harness.send(Side::A, &question);
            expect_counts(harness, scenario, 1, 0);
            for _ in 0..2 {
                harness.send(Side::Provider, &flow.backend_datagram(b"answer"));
                harness.send(Side::A, &question);
                expect_counts(harness, scenario, 1, 1);
            }
        },
    ),
    (
        "a half-open flow that lost an entry is not counted twice",
        |harness, scenario| {
            let syn = scenario.client_segment().syn(1_000);
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            harness.evict_half_open(Side::Provider);
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            expect_counts(harness, scenario, 1, 0);
        },
    ),
    (
        "a revoked flow is counted until it is removed",
        |harness, scenario| {
            scenario.connect(harness);
            harness.decide(scenario.endpoint_name, Decision::Reject);
            expect_counts(harness, scenario, 1, 1);
            harness.decide(scenario.endpoint_name, Decision::Approve);
            expect_counts(harness, scenario, 1, 1);
            let next = scenario.client_segment().syn(90_000);
            harness
                .send(Side::A, &next)
                .expect_forwarded(Side::Provider);
            expect_counts(harness, scenario, 1, 0);
        },
    ),
    (
        "closed flows do not count against the connection limit",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| {
                spec["connection_limit"] = json!(1);
            });
            let flow = scenario.connect(harness);
            let other = (scenario.client_ip(), 40_001).into();
            let second = tcp_segment(other, scenario.https_socket()).syn(1_000);
            harness
                .send(Side::A, &second)
                .expect_dropped(DropReason::FlowLimit);
            harness.send(Side::Provider, &flow.backend_ack().add_flags(RST));
            harness
                .send(Side::A, &second)
                .expect_forwarded(Side::Provider);
            expect_counts(harness, scenario, 1, 0);
            // The reset was ignored: both flows are open, and a third is not.
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            expect_counts(harness, scenario, 2, 1);
        },
    ),
];

#[test]
fn flows_are_counted_by_their_states() {
    run_scenarios(CASES);
}
