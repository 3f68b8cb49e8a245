//! Flows whose backend takes no new flows by now: which packets select a backend again.

use super::*;
use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use tests::packet::flag::RST;

/// Cause for which a backend takes no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Unhealthy,
    Draining,
    Unreachable,
}

const CAUSES: [Cause; 3] = [Cause::Unhealthy, Cause::Draining, Cause::Unreachable];

/// Takes a flow's backend out of the selection.
fn take_out(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
    cause: Cause,
) {
    let address = flow.backend.ip();
    match cause {
        Cause::Unhealthy => harness.mark_unhealthy(scenario.service, address),
        Cause::Unreachable => harness.set_reachable(address, false),
        Cause::Draining => harness.change_service(scenario.service, |spec| {
            let backends = spec["resources"][0]["backends"].as_array_mut();
            for backend in backends.expect("a list") {
                if backend["address"] == address.to_string() {
                    backend["drain"] = true.into();
                }
            }
        }),
    }
}

fn set_action(harness: &mut DifferentialHarness, scenario: Scenario, action: &str) {
    harness.change_service(scenario.service, |spec| {
        spec["health_check"]["unhealthy_flow_action"] = action.into();
    });
}

/// Runs a case for each cause.
fn for_each_cause(
    harness: &mut DifferentialHarness,
    causes: &[Cause],
    case: impl Fn(&mut DifferentialHarness, Cause),
) {
    for cause in causes {
        harness.reset();
        println!("{cause:?}");
        case(harness, *cause);
    }
}

/// Sends a packet that must go to another backend than that of `flow`, and returns the new flow.
#[track_caller]
fn expect_moved(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    packet: &Packet,
    flow: ProviderFlow,
    port: u16,
) -> ProviderFlow {
    let out = harness.send(Side::A, packet);
    let moved = scenario.expect_forwarded_to_service(&out, port);
    assert_ne!(moved.backend, flow.backend);
    // A client's socket keeps its source.
    assert_eq!(moved.nat, flow.nat);
    moved
}

fn establish_udp(harness: &mut DifferentialHarness, scenario: Scenario) -> ProviderFlow {
    let (flow, _) = open_udp_flow(harness, scenario);
    harness
        .send(Side::Provider, &flow.backend_datagram(b"answer"))
        .expect_forwarded(Side::A);
    harness
        .send(Side::A, &scenario.client_datagram(b"question"))
        .expect_forwarded(Side::Provider);
    flow
}

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a SYN that is sent again selects again once its backend takes no flows",
        |harness, scenario| {
            for action in ["reselect", "keep"] {
                for_each_cause(harness, &CAUSES, |harness, cause| {
                    set_action(harness, scenario, action);
                    let syn = scenario.client_segment().syn(1_000);
                    let out = harness.send(Side::A, &syn);
                    let flow = scenario.expect_forwarded_to_service(&out, 8_443);
                    take_out(harness, scenario, flow, cause);
                    let moved = expect_moved(harness, scenario, &syn, flow, 8_443);
                    assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
                    // The dead backend's late answer belongs to no flow.
                    let late = flow.backend_segment().syn_ack(7_000, 1_001);
                    harness
                        .send(Side::Provider, &late)
                        .expect_tcp_reset(DropReason::NoFlow);
                    let answer = moved.backend_segment().syn_ack(5_000, 1_001);
                    harness
                        .send(Side::Provider, &answer)
                        .expect_forwarded(Side::A);
                    harness
                        .send(Side::A, &scenario.client_ack())
                        .expect_forwarded(Side::Provider);
                    assert_eq!(harness.flows(PlaceState::Established), 1);
                });
            }
        },
    ),
    (
        "a SYN that was answered stays with its backend, unless that is unreachable",
        |harness, scenario| {
            for_each_cause(harness, &CAUSES, |harness, cause| {
                let syn = scenario.client_segment().syn(1_000);
                let out = harness.send(Side::A, &syn);
                let flow = scenario.expect_forwarded_to_service(&out, 8_443);
                let answer = flow.backend_segment().syn_ack(5_000, 1_001);
                harness
                    .send(Side::Provider, &answer)
                    .expect_forwarded(Side::A);
                take_out(harness, scenario, flow, cause);
                if cause == Cause::Unreachable {
                    expect_moved(harness, scenario, &syn, flow, 8_443);
                } else {
                    let out = harness.send(Side::A, &syn);
                    assert_eq!(scenario.expect_forwarded_to_service(&out, 8_443), flow);
                }
            });
        },
    ),
    (
        "an established connection stays with its backend",
        |harness, scenario| {
            for_each_cause(harness, &CAUSES[..2], |harness, cause| {
                let flow = scenario.connect(harness);
                take_out(harness, scenario, flow, cause);
                for packet in [
                    scenario.client_ack().with_payload(b"data"),
                    scenario.client_segment().syn(90_000),
                ] {
                    let out = harness.send(Side::A, &packet);
                    assert_eq!(scenario.expect_forwarded_to_service(&out, 8_443), flow);
                }
                harness
                    .send(Side::Provider, &flow.backend_ack())
                    .expect_forwarded(Side::A);
            });
        },
    ),
    (
        "a SYN on a connection whose backend is unreachable opens another one, data does not",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            take_out(harness, scenario, flow, Cause::Unreachable);
            harness
                .send(Side::A, &scenario.client_ack().with_payload(b"data"))
                .expect_dropped(DropReason::NoBackend);
            harness
                .send(
                    Side::A,
                    &scenario.client_segment().with_flags(RST, 1 << 30, 0),
                )
                .expect_dropped(DropReason::ResetOutOfWindow);
            let syn = scenario.client_segment().syn(90_000);
            expect_moved(harness, scenario, &syn, flow, 8_443);
            assert_eq!(harness.flows(PlaceState::Established), 0);
        },
    ),
    (
        "the next datagram of a UDP flow selects again, half-open and established",
        |harness, scenario| {
            for_each_cause(harness, &CAUSES, |harness, cause| {
                for established in [false, true] {
                    harness.reset();
                    let flow = if established {
                        establish_udp(harness, scenario)
                    } else {
                        open_udp_flow(harness, scenario).0
                    };
                    take_out(harness, scenario, flow, cause);
                    let question = scenario.client_datagram(b"question");
                    let moved = expect_moved(harness, scenario, &question, flow, 53);
                    harness
                        .send(Side::Provider, &flow.backend_datagram(b"late"))
                        .expect_icmp_error(DropReason::NoFlow);
                    harness
                        .send(Side::Provider, &moved.backend_datagram(b"answer"))
                        .expect_forwarded(Side::A);
                    let out = harness.send(Side::A, &question);
                    assert_eq!(scenario.expect_forwarded_to_service(&out, 53), moved);
                }
            });
        },
    ),
    (
        "a UDP flow stays with its backend where the service keeps flows",
        |harness, scenario| {
            for_each_cause(harness, &CAUSES[..2], |harness, cause| {
                set_action(harness, scenario, "keep");
                let flow = establish_udp(harness, scenario);
                take_out(harness, scenario, flow, cause);
                let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
                assert_eq!(scenario.expect_forwarded_to_service(&out, 53), flow);
            });
        },
    ),
    (
        "a UDP flow stays with its backend while no other one takes flows",
        |harness, scenario| {
            for_each_cause(harness, &CAUSES[..2], |harness, cause| {
                let flow = establish_udp(harness, scenario);
                take_out(harness, scenario, flow, cause);
                let moved =
                    expect_moved(harness, scenario, &scenario.client_datagram(b"x"), flow, 53);
                take_out(harness, scenario, moved, cause);
                let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
                assert_eq!(scenario.expect_forwarded_to_service(&out, 53), moved);
                harness
                    .send(Side::Provider, &moved.backend_datagram(b"answer"))
                    .expect_forwarded(Side::A);
            });
        },
    ),
];
