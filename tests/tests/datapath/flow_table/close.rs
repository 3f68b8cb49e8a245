//! Closing: a TCP flow is closed when both FINs are acknowledged, or by a reset.

use gateway_common::DropReason;
use tests::{
    datapath::{
        differential::{DifferentialHarness, Side},
        scenario::{ProviderFlow, Scenario},
    },
    packet::{
        Packet,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
};

use super::states;
use crate::{ScenarioCase, run_scenarios};

/// Sequence numbers of the next bytes of client and backend.
const CLIENT_NEXT: u32 = 1_001;
const BACKEND_NEXT: u32 = 5_001;

const ESTABLISHED: (usize, usize, usize) = (0, 1, 0);
const CLOSED: (usize, usize, usize) = (0, 0, 1);

/// A segment of the client: flags, and the sequence and acknowledgement numbers relative to the established state.
fn of_client(scenario: Scenario, flags: u8, sequence: u32, acknowledged: u32) -> Packet {
    scenario
        .client_segment()
        .with_flags(flags, CLIENT_NEXT + sequence, BACKEND_NEXT + acknowledged)
}

/// A segment of the backend, as [`of_client`].
fn of_backend(flow: ProviderFlow, flags: u8, sequence: u32, acknowledged: u32) -> Packet {
    flow.backend_segment()
        .with_flags(flags, BACKEND_NEXT + sequence, CLIENT_NEXT + acknowledged)
}

/// Sends a segment of the client, which must be forwarded.
#[track_caller]
fn client(harness: &mut DifferentialHarness, packet: &Packet) {
    harness
        .send(Side::A, packet)
        .expect_forwarded(Side::Provider);
}

/// Sends a segment of the backend, which must be forwarded.
#[track_caller]
fn backend(harness: &mut DifferentialHarness, packet: &Packet) {
    harness
        .send(Side::Provider, packet)
        .expect_forwarded(Side::A);
}

/// Sends a packet, and returns the number of native subprograms that it took.
#[track_caller]
fn subprograms(harness: &mut DifferentialHarness, side: Side, packet: &Packet) -> u32 {
    let _before = harness.native_maps().helper_calls.take_counts();
    harness.send(side, packet);
    let calls = harness.native_maps().helper_calls.take_counts();
    calls.get("subprogram").copied().unwrap_or(0)
}

/// Closes a connection by FINs, the client's first.
#[track_caller]
fn close(harness: &mut DifferentialHarness, scenario: Scenario, flow: ProviderFlow) {
    client(harness, &of_client(scenario, FIN | ACK, 0, 0));
    backend(harness, &of_backend(flow, FIN | ACK, 0, 1));
    client(harness, &of_client(scenario, ACK, 1, 1));
}

const CASES: &[ScenarioCase] = &[
    (
        "the client's FIN first: the flow is closed when both are acknowledged",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            backend(harness, &of_backend(flow, ACK, 0, 1));
            backend(harness, &of_backend(flow, FIN | ACK, 0, 1));
            assert_eq!(states(harness), ESTABLISHED);
            client(harness, &of_client(scenario, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "the backend's FIN first: the flow is closed when both are acknowledged",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            backend(harness, &of_backend(flow, FIN | ACK, 0, 0));
            client(harness, &of_client(scenario, ACK, 0, 1));
            client(harness, &of_client(scenario, FIN | ACK, 0, 1));
            assert_eq!(states(harness), ESTABLISHED);
            backend(harness, &of_backend(flow, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "FINs that cross: the flow is closed when both are acknowledged",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            backend(harness, &of_backend(flow, FIN | ACK, 0, 0));
            backend(harness, &of_backend(flow, ACK, 1, 1));
            assert_eq!(states(harness), ESTABLISHED);
            client(harness, &of_client(scenario, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a FIN with data is acknowledged by the number behind both",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let last = of_client(scenario, FIN | PSH | ACK, 0, 0).with_payload(&[7; 10]);
            client(harness, &last);
            backend(harness, &of_backend(flow, FIN | ACK, 0, 10));
            client(harness, &of_client(scenario, ACK, 11, 1));
            // The data is acknowledged, the FIN is not.
            assert_eq!(states(harness), ESTABLISHED);
            backend(harness, &of_backend(flow, ACK, 1, 10));
            assert_eq!(states(harness), ESTABLISHED);
            backend(harness, &of_backend(flow, ACK, 1, 11));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a FIN that is sent again changes nothing, and is forwarded after the close too",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            for _ in 0..3 {
                client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            }
            backend(harness, &of_backend(flow, ACK, 0, 1));
            client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            for _ in 0..2 {
                backend(harness, &of_backend(flow, FIN | ACK, 0, 1));
            }
            assert_eq!(states(harness), ESTABLISHED);
            client(harness, &of_client(scenario, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
            backend(harness, &of_backend(flow, FIN | ACK, 0, 1));
            client(harness, &of_client(scenario, ACK, 1, 1));
            client(harness, &of_client(scenario, FIN | ACK, 0, 1));
            backend(harness, &of_backend(flow, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a FIN may be acknowledged late, after more data of the other side",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            for sent in [0, 100, 200] {
                let data = of_backend(flow, PSH | ACK, sent, 0).with_payload(&[7; 100]);
                backend(harness, &data);
            }
            backend(harness, &of_backend(flow, FIN | ACK, 300, 0));
            client(harness, &of_client(scenario, ACK, 1, 301));
            assert_eq!(states(harness), ESTABLISHED);
            backend(harness, &of_backend(flow, ACK, 301, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a FIN out of the window changes nothing",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            for sequence in [1 << 20, 1 << 31, u32::MAX / 4 * 3] {
                let stray = scenario.client_segment().with_flags(
                    FIN | ACK,
                    CLIENT_NEXT.wrapping_add(sequence),
                    BACKEND_NEXT,
                );
                client(harness, &stray);
            }
            backend(harness, &of_backend(flow, FIN | ACK, 0, 0));
            client(harness, &of_client(scenario, ACK, 0, 1));
            backend(harness, &of_backend(flow, ACK, 1, 0));
            assert_eq!(states(harness), ESTABLISHED);
            client(harness, &of_client(scenario, FIN | ACK, 0, 1));
            backend(harness, &of_backend(flow, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a half-closed flow stays established, and its other direction takes the fast path",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            client(harness, &of_client(scenario, FIN | ACK, 0, 0));
            backend(harness, &of_backend(flow, ACK, 0, 1));
            for number in 0..4 {
                let data = of_backend(flow, PSH | ACK, number * 100, 1).with_payload(&[7; 100]);
                let ack = of_client(scenario, ACK, 1, (number + 1) * 100);
                if scenario.is_translated() {
                    backend(harness, &data);
                    client(harness, &ack);
                } else {
                    assert_eq!(subprograms(harness, Side::Provider, &data), 1);
                    assert_eq!(subprograms(harness, Side::A, &ack), 1);
                }
            }
            assert_eq!(states(harness), ESTABLISHED);
        },
    ),
    (
        "a reset in the window closes the flow, of either side",
        |harness, scenario| {
            for of_the_client in [true, false] {
                harness.reset();
                let flow = scenario.connect(harness);
                if of_the_client {
                    client(harness, &of_client(scenario, RST | ACK, 10, 0));
                } else {
                    backend(harness, &of_backend(flow, RST | ACK, 10, 0));
                }
                assert_eq!(states(harness), CLOSED);
            }
        },
    ),
    (
        "a reset that answers the SYN closes the flow",
        |harness, scenario| {
            let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            let refusal = flow.backend_segment().with_flags(RST | ACK, 0, CLIENT_NEXT);
            backend(harness, &refusal);
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "a segment behind a reset of the same side opens the flow again (RFC 6146, TRANS)",
        |harness, scenario| {
            for of_the_client in [true, false] {
                harness.reset();
                let flow = scenario.connect(harness);
                let (to_service, to_consumer) =
                    (of_client(scenario, ACK, 0, 0), of_backend(flow, ACK, 0, 0));
                if of_the_client {
                    client(harness, &of_client(scenario, RST, 0, 0));
                    // The other side has not reset the connection, and its segments do not show that this one did not.
                    backend(harness, &to_consumer);
                    assert_eq!(states(harness), CLOSED);
                    client(harness, &to_service);
                } else {
                    backend(harness, &of_backend(flow, RST, 0, 0));
                    client(harness, &to_service);
                    assert_eq!(states(harness), CLOSED);
                    backend(harness, &to_consumer);
                }
                assert_eq!(states(harness), ESTABLISHED);
                client(harness, &to_service);
                backend(harness, &to_consumer);
                close(harness, scenario, flow);
                assert_eq!(states(harness), CLOSED);
            }
        },
    ),
    (
        "a flow that was reset while it was half-open is not established without the backend",
        |harness, scenario| {
            client(harness, &scenario.client_segment().syn(1_000));
            client(harness, &of_client(scenario, RST, 0, 0));
            client(harness, &of_client(scenario, ACK, 0, 0));
            assert_eq!(states(harness).1, 0);
            // The client's number does not confirm the backend's SYN.
            harness.reset();
            let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            backend(harness, &flow.backend_segment().syn_ack(7, CLIENT_NEXT));
            client(harness, &of_client(scenario, RST, 0, 0));
            client(harness, &of_client(scenario, ACK, 0, 0));
            assert_eq!(states(harness).1, 0);
        },
    ),
    (
        "a reset behind both FINs does not open the flow again",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            close(harness, scenario, flow);
            client(harness, &of_client(scenario, RST, 1, 0));
            client(harness, &of_client(scenario, ACK, 1, 1));
            assert_eq!(states(harness), CLOSED);
        },
    ),
    (
        "an entry that lost its other direction is not established by a segment behind a reset",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            backend(harness, &of_backend(flow, RST, 0, 0));
            // The SYN is not beyond the old connection, so it gets another port.
            let again = harness.send(Side::A, &scenario.client_segment().syn(1));
            scenario.expect_forwarded_to_service(&again, 8_443);
            harness.send(Side::Provider, &of_backend(flow, ACK, 0, 0));
            let usage = harness.usage(scenario.endpoint_name);
            assert_eq!((usage.flows.get(), usage.established.get()), (1, 0));
            let entries = {
                let maps = harness.native_maps();
                let (v4, v6) = (maps.flows_v4.entries(), maps.flows_v6.entries());
                v4.iter()
                    .map(|(control, ..)| *control)
                    .chain(v6.iter().map(|(control, ..)| *control))
                    .filter(|control| control.is_confirmed())
                    .count()
            };
            assert_eq!(entries, 0);
        },
    ),
    (
        "a stray SYN does not widen the window of an established flow",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let far = of_backend(flow, RST, 1 << 24, 0);
            harness
                .send(Side::Provider, &far)
                .expect_dropped(DropReason::ResetOutOfWindow);
            for flags in [SYN, SYN | ACK] {
                let stray = scenario.client_segment().with_flags(flags, 77, 77);
                client(harness, &stray.with_tcp_options(&[3, 3, 14, 0]));
            }
            harness
                .send(Side::Provider, &far)
                .expect_dropped(DropReason::ResetOutOfWindow);
            assert_eq!(states(harness), ESTABLISHED);
        },
    ),
];

#[test]
fn flows_are_closed_by_acknowledged_fins_and_resets() {
    run_scenarios(CASES);
}
