//! Departed backends, removed or unhealthy: their flows end in both directions.

use gateway_common::{DropReason, flow::PlaceState};
use serde_json::Value;
use tests::{
    datapath::{
        assertions::expect_rejected,
        differential::{BACKEND_MAC, DNS, DifferentialHarness, Side},
        scenario::{ProviderFlow, Scenario},
    },
    packet::{builders::icmp_error, flag::RST},
};

use super::{open_udp_flow, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

/// The cause of a backend's departure.
#[derive(Clone, Copy, Debug)]
enum Departure {
    Removed,
    Unhealthy,
}

const DEPARTURES: [Departure; 2] = [Departure::Removed, Departure::Unhealthy];

/// Changes the flow's backend in the service's specification.
fn change_backend(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
    edit: impl Fn(&mut Vec<Value>, usize),
) {
    let address = flow.backend.ip().to_string();
    harness.change_service(scenario.service, |spec| {
        let backends = spec["resources"][0]["backends"].as_array_mut();
        let backends = backends.expect("a list");
        let index = backends
            .iter()
            .position(|b| b["address"] == address.as_str());
        edit(backends, index.expect("a backend"));
    });
}

/// Makes the flow's backend depart.
fn remove_from_selection(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
    departure: Departure,
) {
    match departure {
        Departure::Removed => change_backend(harness, scenario, flow, |backends, index| {
            backends.remove(index);
        }),
        Departure::Unhealthy => {
            harness.change_service(scenario.service, |spec| {
                spec["health_check"]["unhealthy_flow_action"] = "reset".into();
            });
            harness.mark_unhealthy(scenario.service, flow.backend.ip());
        }
    }
}

/// Runs a case for each cause of departure.
fn for_each_departure(
    harness: &mut DifferentialHarness,
    case: impl Fn(&mut DifferentialHarness, Departure),
) {
    for departure in DEPARTURES {
        harness.reset();
        println!("{departure:?}");
        case(harness, departure);
    }
}

/// Establishes a UDP flow.
#[track_caller]
fn open_answered_udp_flow(harness: &mut DifferentialHarness, scenario: Scenario) -> ProviderFlow {
    let (flow, _) = open_udp_flow(harness, scenario);
    harness
        .send(Side::Provider, &flow.backend_datagram(b"answer"))
        .expect_forwarded(Side::A);
    harness
        .send(Side::A, &scenario.client_datagram(b"question"))
        .expect_forwarded(Side::Provider);
    flow
}

const CASES: &[ScenarioCase] = &[
    (
        "a TCP connection to a departed backend is reset, to both sides",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let flow = scenario.connect(harness);
                remove_from_selection(harness, scenario, flow, departure);
                let data = flow.backend_ack().with_payload(b"more");
                let reset = harness
                    .send(Side::Provider, &data)
                    .expect_tcp_reset(DropReason::BackendRemoved);
                assert_eq!(reset.sequence, 1_001);
                let data = scenario.client_ack().with_payload(b"more");
                let reset = harness
                    .send(Side::A, &data)
                    .expect_tcp_reset(DropReason::BackendRemoved);
                assert_eq!(reset.sequence, 5_001);
            });
        },
    ),
    (
        "a TCP connection that is half-open when its backend leaves is reset, to both sides",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
                let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
                remove_from_selection(harness, scenario, flow, departure);
                harness
                    .send(
                        Side::Provider,
                        &flow.backend_segment().syn_ack(5_000, 1_001),
                    )
                    .expect_tcp_reset(DropReason::BackendRemoved);
                harness
                    .send(Side::A, &scenario.client_ack())
                    .expect_tcp_reset(DropReason::BackendRemoved);
            });
        },
    ),
    (
        "datagrams of a departed backend are rejected, and the client gets another backend",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let flow = open_answered_udp_flow(harness, scenario);
                remove_from_selection(harness, scenario, flow, departure);
                let answer = flow.backend_datagram(b"answer");
                harness
                    .send(Side::Provider, &answer)
                    .expect_icmp_error(DropReason::BackendRemoved)
                    .expect_embedded(&answer);
                let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
                assert_ne!(
                    scenario.expect_forwarded_to_service(&out, DNS).backend,
                    flow.backend
                );
                assert_eq!(harness.flows(PlaceState::Established), 0);
            });
        },
    ),
    (
        "a departed backend's reply to a first datagram is rejected",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let (flow, _) = open_udp_flow(harness, scenario);
                remove_from_selection(harness, scenario, flow, departure);
                harness
                    .send(Side::Provider, &flow.backend_datagram(b"answer"))
                    .expect_icmp_error(DropReason::BackendRemoved);
            });
        },
    ),
    (
        "fragments of a departed backend are dropped, of partly forwarded datagrams too",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let flow = open_answered_udp_flow(harness, scenario);
                let first = flow
                    .backend_datagram(&[1; 3_000])
                    .split_into_fragments(1_200, 1);
                harness
                    .send(Side::Provider, &first[0])
                    .expect_forwarded(Side::A);
                remove_from_selection(harness, scenario, flow, departure);
                harness
                    .send(Side::Provider, &first[1])
                    .expect_dropped(DropReason::BackendRemoved);
                let second = flow
                    .backend_datagram(&[2; 3_000])
                    .split_into_fragments(1_200, 2);
                expect_rejected(
                    &harness.send(Side::Provider, &second[0]),
                    DropReason::BackendRemoved,
                );
                harness
                    .send(Side::Provider, &second[1])
                    .expect_dropped(DropReason::FragmentOrphan);
            });
        },
    ),
    (
        "ICMP errors about a flow of a departed backend are dropped, half-open and established",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                for established in [false, true] {
                    harness.reset();
                    let (flow, question) = open_udp_flow(harness, scenario);
                    let answer = harness.send(Side::Provider, &flow.backend_datagram(b"answer"));
                    let answer = answer.expect_forwarded(Side::A).packet;
                    if established {
                        harness
                            .send(Side::A, &scenario.client_datagram(b"question"))
                            .expect_forwarded(Side::Provider);
                    }
                    remove_from_selection(harness, scenario, flow, departure);
                    let kind = port_unreachable(scenario.provider_is_v4());
                    let refusal =
                        icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &question, 500);
                    harness
                        .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                        .expect_dropped(DropReason::BackendRemoved);
                    let kind = port_unreachable(scenario.is_v4());
                    let ends = (scenario.client_ip(), scenario.endpoint_ip());
                    let refusal = icmp_error(ends.0, ends.1, kind, 0, &answer, 500);
                    harness
                        .send(Side::A, &refusal)
                        .expect_dropped(DropReason::BackendRemoved);
                }
            });
        },
    ),
    (
        "a departed backend does not change the flow: its reset is dropped",
        |harness, scenario| {
            for_each_departure(harness, |harness, departure| {
                let flow = scenario.connect(harness);
                remove_from_selection(harness, scenario, flow, departure);
                let reset = flow.backend_segment().with_flags(RST, 5_001, 0);
                harness
                    .send(Side::Provider, &reset)
                    .expect_dropped(DropReason::BackendRemoved);
                // While the connection is not closed, the client's SYN opens another flow.
                harness
                    .send(Side::A, &scenario.client_ack())
                    .expect_tcp_reset(DropReason::BackendRemoved);
                let out = harness.send(Side::A, &scenario.client_segment().syn(9));
                assert_ne!(
                    scenario.expect_forwarded_to_service(&out, 8_443).backend,
                    flow.backend
                );
            });
        },
    ),
    (
        "a draining or unhealthy backend keeps its flows if the service says so, in both directions",
        |harness, scenario| {
            for keep in ["drain", "unhealthy"] {
                for established in [false, true] {
                    harness.reset();
                    harness.change_service(scenario.service, |spec| {
                        spec["health_check"]["unhealthy_flow_action"] = "keep".into();
                    });
                    let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
                    let tcp = scenario.expect_forwarded_to_service(&syn, 8_443);
                    let udp = if established {
                        scenario.connect(harness);
                        open_answered_udp_flow(harness, scenario)
                    } else {
                        open_udp_flow(harness, scenario).0
                    };
                    for flow in [tcp, udp] {
                        if keep == "drain" {
                            change_backend(harness, scenario, flow, |backends, index| {
                                backends[index]["drain"] = true.into();
                            });
                        } else {
                            harness.mark_unhealthy(scenario.service, flow.backend.ip());
                        }
                    }
                    let segment = if established {
                        tcp.backend_ack()
                    } else {
                        tcp.backend_segment().syn_ack(5_000, 1_001)
                    };
                    harness
                        .send(Side::Provider, &segment)
                        .expect_forwarded(Side::A);
                    harness
                        .send(Side::A, &scenario.client_ack())
                        .expect_forwarded(Side::Provider);
                    harness
                        .send(Side::Provider, &tcp.backend_ack().with_payload(b"more"))
                        .expect_forwarded(Side::A);
                    for _ in 0..3 {
                        harness
                            .send(Side::Provider, &udp.backend_datagram(b"answer"))
                            .expect_forwarded(Side::A);
                        harness
                            .send(Side::A, &scenario.client_datagram(b"question"))
                            .expect_forwarded(Side::Provider);
                    }
                }
            }
        },
    ),
    (
        "no reply is forwarded for a flow whose consumer's entry was evicted",
        |harness, scenario| {
            let (flow, _) = open_udp_flow(harness, scenario);
            harness.evict_half_open(Side::A);
            let answer = flow.backend_datagram(b"answer");
            expect_rejected(&harness.send(Side::Provider, &answer), DropReason::NoFlow);
        },
    ),
    (
        "an entry's generation is not taken for a sequence number, nor the reverse",
        |harness, scenario| {
            let syn = harness.send(Side::A, &scenario.client_segment().syn(1_000));
            let flow = scenario.expect_forwarded_to_service(&syn, 8_443);
            // The backend's sequence number equals a possible generation.
            harness
                .send(Side::Provider, &flow.backend_segment().syn_ack(0, 1_001))
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_segment().ack(1_001, 1))
                .expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(PlaceState::Established), 1);
            remove_from_selection(harness, scenario, flow, Departure::Removed);
            harness
                .send(Side::Provider, &flow.backend_segment().ack(1, 1_001))
                .expect_tcp_reset(DropReason::BackendRemoved);
        },
    ),
];

#[test]
fn packets_from_a_departed_backend_are_dropped() {
    run_scenarios(CASES);
}
