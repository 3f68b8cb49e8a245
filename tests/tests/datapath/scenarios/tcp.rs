//! TCP connections: opening, data, closing and resets.

use super::*;
use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::{
        assertions::sockets_of,
        differential::{CLIENT_MAC, Side},
    },
    packet::{
        flag::{ACK, FIN, PSH, RST, SYN},
        read::{hop_limit, tcp_of},
    },
};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a SYN goes to a backend, with a decremented TTL",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_segment().syn(1));
            scenario.expect_forwarded_to_service(&out, 8_443);
            assert_eq!(hop_limit(&out.expect_forwarded(Side::Provider).packet), 63);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    (
        "a retransmitted SYN is forwarded alike",
        |harness, scenario| {
            let first = harness.send(Side::A, &scenario.client_segment().syn(1));
            let second = harness.send(Side::A, &scenario.client_segment().syn(1));
            assert_eq!(
                scenario.expect_forwarded_to_service(&first, 8_443),
                scenario.expect_forwarded_to_service(&second, 8_443)
            );
            assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
        },
    ),
    (
        "the reply comes from the endpoint, to the client's MAC address",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_segment().syn(1));
            let flow = scenario.expect_forwarded_to_service(&out, 8_443);
            let back = harness
                .send(Side::Provider, &flow.backend_segment().syn_ack(7, 2))
                .expect_forwarded(Side::A)
                .expect_destination_mac(CLIENT_MAC);
            assert_eq!(
                sockets_of(&back),
                (scenario.https_socket(), scenario.client_socket())
            );
            let tcp = tcp_of(&back.packet);
            assert_eq!(
                (tcp.flags, tcp.sequence, tcp.acknowledgement),
                (SYN | ACK, 7, 2)
            );
        },
    ),
    (
        "the third segment establishes the flow",
        |harness, scenario| {
            scenario.connect(harness);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "data is forwarded in both directions, unchanged",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let there = scenario
                .client_ack()
                .add_flags(PSH)
                .with_payload(b"question");
            let out = harness.send(Side::A, &there);
            assert_eq!(scenario.expect_forwarded_to_service(&out, 8_443), flow);
            assert_eq!(
                tcp_of(&out.expect_forwarded(Side::Provider).packet).payload,
                b"question"
            );
            let back = flow.backend_ack().add_flags(PSH).with_payload(b"an answer");
            let out = harness
                .send(Side::Provider, &back)
                .expect_forwarded(Side::A);
            assert_eq!(tcp_of(&out.packet).payload, b"an answer");
            assert_eq!(
                sockets_of(&out),
                (scenario.https_socket(), scenario.client_socket())
            );
        },
    ),
    (
        "a checksum left to hardware is completed, in every phase and both directions",
        |harness, scenario| {
            let syn = harness.send_offloaded(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            harness
                .send_offloaded(
                    Side::Provider,
                    &flow.backend_segment().syn_ack(5_000, 1_001),
                )
                .expect_forwarded(Side::A);
            for length in [0, 1, 2, 511, 512, 513, 1_024, 1_400] {
                let there = scenario
                    .client_ack()
                    .with_payload(&payload_of(length + 1)[..length / 2 * 2]);
                harness
                    .send_offloaded(Side::A, &there)
                    .expect_forwarded(Side::Provider);
                let back = flow.backend_ack().with_payload(&vec![0xa5; length]);
                harness
                    .send_offloaded(Side::Provider, &back)
                    .expect_forwarded(Side::A);
            }
        },
    ),
    (
        "a half-closed connection forwards the other direction",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::A, &scenario.client_ack().add_flags(FIN))
                .expect_forwarded(Side::Provider);
            for _ in 0..3 {
                harness
                    .send(Side::Provider, &flow.backend_ack().with_payload(b"more"))
                    .expect_forwarded(Side::A);
            }
            // A SYN opens no new connection while one direction is open.
            harness
                .send(Side::A, &scenario.client_segment().syn(90_000))
                .expect_forwarded(Side::Provider);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "a port in TIME_WAIT opens a new connection (RFC 5382, REQ-2)",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::A, &scenario.client_ack().add_flags(FIN))
                .expect_forwarded(Side::Provider);
            harness
                .send(
                    Side::Provider,
                    &flow.backend_segment().with_flags(FIN | ACK, 5_001, 1_002),
                )
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_segment().ack(1_002, 5_002))
                .expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(PlaceState::Closed), 1);
            let again = harness.send(Side::A, &scenario.client_segment().syn(90_000));
            scenario.expect_forwarded_to_service(&again, 8_443);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    (
        "a simultaneous open succeeds (RFC 5382, REQ-2)",
        |harness, scenario| {
            let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            harness
                .send(Side::Provider, &flow.backend_segment().syn(5_000))
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_segment().syn_ack(1_000, 5_001))
                .expect_forwarded(Side::Provider);
            harness
                .send(
                    Side::Provider,
                    &flow.backend_segment().syn_ack(5_000, 1_001),
                )
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "a reset within the window ends the flow, from either side",
        |harness, scenario| {
            for from_client in [true, false] {
                harness.reset();
                let flow = scenario.connect(harness);
                if from_client {
                    harness
                        .send(Side::Provider, &flow.backend_ack())
                        .expect_forwarded(Side::A);
                    harness
                        .send(Side::A, &scenario.client_ack().add_flags(RST))
                        .expect_forwarded(Side::Provider);
                } else {
                    harness
                        .send(Side::Provider, &flow.backend_ack().add_flags(RST))
                        .expect_forwarded(Side::A);
                }
                let again = harness.send(Side::A, &scenario.client_segment().syn(90_000));
                scenario.expect_forwarded_to_service(&again, 8_443);
                assert_eq!(harness.flows(PlaceState::Established), 0);
            }
        },
    ),
    (
        "a reset outside of the window is dropped (RFC 7857, section 2.2)",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            // A window of 64,240 is rounded up to a multiple of 256.
            const WINDOW: u32 = 64_256;
            for sequence in [1_000, 0, 1_001 + WINDOW + 1, 1_001 + (1 << 31)] {
                harness
                    .send(
                        Side::A,
                        &scenario.client_segment().with_flags(RST, sequence, 0),
                    )
                    .expect_dropped(DropReason::ResetOutOfWindow);
            }
            for sequence in [5_000, 5_001 + WINDOW + 1] {
                harness
                    .send(
                        Side::Provider,
                        &flow
                            .backend_segment()
                            .with_flags(RST | ACK, sequence, 1_001),
                    )
                    .expect_dropped(DropReason::ResetOutOfWindow);
            }
            // The flow is unchanged.
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(PlaceState::Established), 1);
            harness
                .send(
                    Side::A,
                    &scenario.client_segment().with_flags(RST, 1_001 + WINDOW, 0),
                )
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "the window of a reset is scaled (RFC 7323)",
        |harness, scenario| {
            let scaled = [2, 4, 5, 0xb4, 3, 3, 7, 1];
            let syn = harness.send(
                Side::A,
                &scenario
                    .client_segment()
                    .syn(1_000)
                    .with_tcp_options(&scaled),
            );
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            let answer = flow
                .backend_segment()
                .syn_ack(5_000, 1_001)
                .with_tcp_options(&scaled);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            // A window of 64,240 is rounded up to a multiple of 256.
            let far = 1_001 + (64_256 << 7);
            harness
                .send(
                    Side::A,
                    &scenario.client_segment().with_flags(RST, far + 1, 0),
                )
                .expect_dropped(DropReason::ResetOutOfWindow);
            harness
                .send(Side::A, &scenario.client_segment().with_flags(RST, far, 0))
                .expect_forwarded(Side::Provider);
        },
    ),
];
