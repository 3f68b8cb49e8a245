//! Numbers by which a TCP connection is judged: of a connection that re-uses the addresses and ports of another one, of
//! servers with SYN cookies, and with TCP Fast Open.

use super::*;
use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use tests::packet::flag::{ACK, FIN, PSH, RST};

/// Opens another connection over an established one: client and server have forgotten the first.
#[track_caller]
fn reopen(harness: &mut DifferentialHarness, scenario: Scenario) -> ProviderFlow {
    let flow = scenario.connect(harness);
    let data = scenario.client_ack().with_payload(&[7; 100]);
    harness
        .send(Side::A, &data)
        .expect_forwarded(Side::Provider);
    harness
        .send(Side::Provider, &flow.backend_segment().ack(5_001, 1_101))
        .expect_forwarded(Side::A);
    // Far behind the old numbers.
    harness
        .send(Side::A, &scenario.client_segment().syn(3_000_000_000))
        .expect_forwarded(Side::Provider);
    let answer = flow.backend_segment().syn_ack(3_500_000_000, 3_000_000_001);
    harness
        .send(Side::Provider, &answer)
        .expect_forwarded(Side::A);
    flow
}

const NEW_CLIENT: u32 = 3_000_000_001;
const NEW_SERVER: u32 = 3_500_000_001;

/// Numbers of half-open and of established flows.
fn counts(harness: &DifferentialHarness) -> (usize, usize) {
    (
        harness.flows(PlaceState::HalfOpen),
        harness.flows(PlaceState::Established),
    )
}

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a reset of a connection that re-uses ports is judged by its own numbers",
        |harness, scenario| {
            for from_client in [true, false] {
                for is_confirmed in [true, false] {
                    harness.reset();
                    let flow = reopen(harness, scenario);
                    if is_confirmed {
                        let ack = scenario.client_segment().ack(NEW_CLIENT, NEW_SERVER);
                        harness.send(Side::A, &ack).expect_forwarded(Side::Provider);
                    }
                    let (side, other, segment, old, new) = if from_client {
                        let segment = scenario.client_segment();
                        (Side::A, Side::Provider, segment, 1_101, NEW_CLIENT)
                    } else {
                        let segment = flow.backend_segment();
                        (Side::Provider, Side::A, segment, 5_001, NEW_SERVER)
                    };
                    harness
                        .send(side, &segment.clone().with_flags(RST, old, 0))
                        .expect_dropped(DropReason::ResetOutOfWindow);
                    harness
                        .send(side, &segment.with_flags(RST, new, 0))
                        .expect_forwarded(other);
                    assert_eq!(harness.flows(PlaceState::Closed), 1);
                }
            }
        },
    ),
    (
        "a connection that re-uses the ports of a half-closed one closes by its own FINs",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::A, &scenario.client_ack().add_flags(FIN))
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_segment().ack(5_001, 1_002))
                .expect_forwarded(Side::A);
            let segment = scenario.client_segment();
            harness
                .send(Side::A, &segment.clone().syn(NEW_CLIENT - 1))
                .expect_forwarded(Side::Provider);
            let answer = flow.backend_segment().syn_ack(NEW_SERVER - 1, NEW_CLIENT);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &segment.clone().ack(NEW_CLIENT, NEW_SERVER))
                .expect_forwarded(Side::Provider);
            // The server's FIN alone closes nothing, though the old connection's client had sent one.
            let fin = flow
                .backend_segment()
                .with_flags(FIN | ACK, NEW_SERVER, NEW_CLIENT);
            harness.send(Side::Provider, &fin).expect_forwarded(Side::A);
            harness
                .send(Side::A, &segment.clone().ack(NEW_CLIENT, NEW_SERVER + 1))
                .expect_forwarded(Side::Provider);
            assert_eq!(counts(harness), (0, 1));
            harness
                .send(
                    Side::A,
                    &segment.with_flags(FIN | ACK, NEW_CLIENT, NEW_SERVER + 1),
                )
                .expect_forwarded(Side::Provider);
            let last = flow.backend_segment().ack(NEW_SERVER + 1, NEW_CLIENT + 1);
            harness
                .send(Side::Provider, &last)
                .expect_forwarded(Side::A);
            assert_eq!(harness.flows(PlaceState::Closed), 1);
        },
    ),
    (
        "a server that has forgotten the connection refuses a new SYN",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let refusal = flow.backend_segment().with_flags(RST | ACK, 0, NEW_CLIENT);
            harness
                .send(Side::Provider, &refusal)
                .expect_dropped(DropReason::ResetOutOfWindow);
            harness
                .send(Side::A, &scenario.client_segment().syn(NEW_CLIENT - 1))
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &refusal)
                .expect_forwarded(Side::A);
            assert_eq!(harness.flows(PlaceState::Closed), 1);
        },
    ),
    (
        "a stray SYN changes nothing: the server answers it with a challenge ACK",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::A, &scenario.client_segment().syn(NEW_CLIENT - 1))
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            // The first SYN-ACK, sent again, and a reset for the stray SYN.
            harness
                .send(
                    Side::Provider,
                    &flow.backend_segment().syn_ack(5_000, 1_001),
                )
                .expect_forwarded(Side::A);
            let refusal = flow.backend_segment().with_flags(RST | ACK, 0, NEW_CLIENT);
            harness
                .send(Side::Provider, &refusal)
                .expect_dropped(DropReason::ResetOutOfWindow);
            harness
                .send(
                    Side::A,
                    &scenario.client_segment().with_flags(RST, 1_001, 0),
                )
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "a server that answers a repeated SYN with another number is established (SYN cookies)",
        |harness, scenario| {
            for acknowledged in [5_001, 2_000_000_001] {
                harness.reset();
                let segment = scenario.client_segment();
                let out = harness.send(Side::A, &segment.clone().syn(1_000));
                let flow = scenario.expect_forwarded_to_service(&out, 8_443);
                for number in [5_000, 2_000_000_000] {
                    harness
                        .send(
                            Side::Provider,
                            &flow.backend_segment().syn_ack(number, 1_001),
                        )
                        .expect_forwarded(Side::A);
                    harness
                        .send(Side::A, &segment.clone().syn(1_000))
                        .expect_forwarded(Side::Provider);
                }
                for wrong in [5_000, 5_002, 1_000_000, 2_000_000_002] {
                    harness
                        .send(Side::A, &segment.clone().ack(1_001, wrong))
                        .expect_forwarded(Side::Provider);
                    assert_eq!(counts(harness), (1, 0), "{wrong}");
                }
                harness
                    .send(Side::A, &segment.clone().ack(1_001, acknowledged))
                    .expect_forwarded(Side::Provider);
                assert_eq!(counts(harness), (0, 1), "{acknowledged}");
                let reset = flow.backend_segment().with_flags(RST, acknowledged, 0);
                harness
                    .send(Side::Provider, &reset)
                    .expect_forwarded(Side::A);
            }
        },
    ),
    (
        "TCP Fast Open is established, whatever the server acknowledges (RFC 7413)",
        |harness, scenario| {
            for covers_data in [true, false] {
                for answers_early in [true, false] {
                    harness.reset();
                    let segment = scenario.client_segment();
                    let syn = segment.clone().syn(1_000).with_payload(&[1; 200]);
                    let out = harness.send(Side::A, &syn);
                    let flow = scenario.expect_forwarded_to_service(&out, 8_443);
                    let next = if covers_data { 1_201 } else { 1_001 };
                    harness
                        .send(Side::Provider, &flow.backend_segment().syn_ack(5_000, next))
                        .expect_forwarded(Side::A);
                    let mut acknowledged = 5_001;
                    if answers_early {
                        let data = flow
                            .backend_segment()
                            .with_flags(PSH | ACK, 5_001, next)
                            .with_payload(&[2; 1_000]);
                        harness
                            .send(Side::Provider, &data)
                            .expect_forwarded(Side::A);
                        acknowledged = 6_001;
                    }
                    harness
                        .send(Side::A, &segment.clone().ack(1_001, acknowledged + 1))
                        .expect_forwarded(Side::Provider);
                    assert_eq!(counts(harness), (1, 0));
                    harness
                        .send(Side::A, &segment.clone().ack(next, acknowledged))
                        .expect_forwarded(Side::Provider);
                    assert_eq!(counts(harness), (0, 1));
                    harness
                        .send(Side::A, &segment.with_flags(RST, next, 0))
                        .expect_forwarded(Side::Provider);
                    assert_eq!(harness.flows(PlaceState::Closed), 1);
                }
            }
        },
    ),
    (
        "a server's FIN before the client's first ACK closes the connection",
        |harness, scenario| {
            for acknowledged in [5_001, 5_102] {
                harness.reset();
                let segment = scenario.client_segment();
                let out = harness.send(Side::A, &segment.clone().syn(1_000).with_payload(b"q"));
                let flow = scenario.expect_forwarded_to_service(&out, 8_443);
                harness
                    .send(
                        Side::Provider,
                        &flow.backend_segment().syn_ack(5_000, 1_002),
                    )
                    .expect_forwarded(Side::A);
                let answer = flow
                    .backend_segment()
                    .with_flags(FIN | ACK, 5_001, 1_002)
                    .with_payload(&[2; 100]);
                harness
                    .send(Side::Provider, &answer)
                    .expect_forwarded(Side::A);
                harness
                    .send(Side::A, &segment.clone().ack(1_002, acknowledged))
                    .expect_forwarded(Side::Provider);
                assert_eq!(counts(harness), (0, 1));
                harness
                    .send(Side::A, &segment.with_flags(FIN | ACK, 1_002, 5_102))
                    .expect_forwarded(Side::Provider);
                harness
                    .send(Side::Provider, &flow.backend_segment().ack(5_102, 1_003))
                    .expect_forwarded(Side::A);
                assert_eq!(harness.flows(PlaceState::Closed), 1);
            }
        },
    ),
];
