//! Backends that were removed or failed their health check: their flows end, in both directions.

use gateway_common::{DropReason, flow::Table};
use serde_json::Value;
use tests::{
    differential::{BACKEND_MAC, DNS, DifferentialHarness, Side},
    packet::flag::RST,
    scenario::{ProviderFlow, Scenario, error, refused},
};

use super::{open_udp_flow, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

/// Cause of a backend leaving.
#[derive(Clone, Copy, Debug)]
enum Departure {
    Removed,
    Unhealthy,
}

const DEPARTURES: [Departure; 2] = [Departure::Removed, Departure::Unhealthy];

/// Changes the flow's backend in the service's specification.
fn change_backend(
    lab: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
    edit: impl Fn(&mut Vec<Value>, usize),
) {
    let address = flow.backend.ip().to_string();
    lab.change_service(scenario.service, |spec| {
        let backends = spec["resources"][0]["backends"].as_array_mut();
        let backends = backends.expect("a list");
        let index = backends
            .iter()
            .position(|b| b["address"] == address.as_str());
        edit(backends, index.expect("a backend"));
    });
}

/// Makes the flow's backend leave.
fn remove_from_selection(
    lab: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
    departure: Departure,
) {
    match departure {
        Departure::Removed => change_backend(lab, scenario, flow, |backends, index| {
            backends.remove(index);
        }),
        Departure::Unhealthy => {
            lab.change_service(scenario.service, |spec| {
                spec["health_check"]["unhealthy_flow_action"] = "reset".into();
            });
            lab.mark_unhealthy(scenario.service, flow.backend.ip());
        }
    }
}

/// Runs a row for each way in which a backend can leave.
fn for_each_departure(
    lab: &mut DifferentialHarness,
    row: impl Fn(&mut DifferentialHarness, Departure),
) {
    for departure in DEPARTURES {
        lab.reset();
        println!("{departure:?}");
        row(lab, departure);
    }
}

/// Opens a UDP flow, as far as both sides agree to it.
#[track_caller]
fn open_answered_udp_flow(lab: &mut DifferentialHarness, scenario: Scenario) -> ProviderFlow {
    let (flow, _) = open_udp_flow(lab, scenario);
    lab.send(Side::Provider, &flow.answer(b"answer"))
        .expect_forwarded(Side::A);
    lab.send(Side::A, &scenario.question(b"question"))
        .expect_forwarded(Side::Provider);
    flow
}

const CASES: &[ScenarioCase] = &[
    (
        "a TCP connection to a backend that left is reset, to both sides",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let flow = scenario.connect(lab);
                remove_from_selection(lab, scenario, flow, exit);
                let data = flow.from_backend().with_payload(b"more");
                let reset = lab
                    .send(Side::Provider, &data)
                    .expect_tcp_reset(DropReason::BackendRemoved);
                assert_eq!(reset.sequence, 1_001);
                let data = scenario.from_client().with_payload(b"more");
                let reset = lab
                    .send(Side::A, &data)
                    .expect_tcp_reset(DropReason::BackendRemoved);
                assert_eq!(reset.sequence, 5_001);
            });
        },
    ),
    (
        "a TCP connection that is half-open when its backend leaves is reset, to both sides",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let syn = lab.send(Side::A, &scenario.segment().syn(1_000));
                let flow = scenario.went_to_service(&syn, 8_443);
                remove_from_selection(lab, scenario, flow, exit);
                lab.send(Side::Provider, &flow.segment().syn_ack(5_000, 1_001))
                    .expect_tcp_reset(DropReason::BackendRemoved);
                lab.send(Side::A, &scenario.from_client())
                    .expect_tcp_reset(DropReason::BackendRemoved);
            });
        },
    ),
    (
        "a backend that left sends no datagrams, and the client finds another",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let flow = open_answered_udp_flow(lab, scenario);
                remove_from_selection(lab, scenario, flow, exit);
                let answer = flow.answer(b"answer");
                lab.send(Side::Provider, &answer)
                    .expect_icmp_error(DropReason::BackendRemoved)
                    .expect_embedded(&answer);
                let out = lab.send(Side::A, &scenario.question(b"question"));
                assert_ne!(scenario.went_to_service(&out, DNS).backend, flow.backend);
                assert_eq!(lab.flows(Table::Established), 0);
            });
        },
    ),
    (
        "a backend that left does not answer a first datagram",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let (flow, _) = open_udp_flow(lab, scenario);
                remove_from_selection(lab, scenario, flow, exit);
                lab.send(Side::Provider, &flow.answer(b"answer"))
                    .expect_icmp_error(DropReason::BackendRemoved);
            });
        },
    ),
    (
        "fragments of a backend that left are counted, of datagrams under way too",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let flow = open_answered_udp_flow(lab, scenario);
                let first = flow.answer(&[1; 3_000]).fragments(1_200, 1);
                lab.send(Side::Provider, &first[0])
                    .expect_forwarded(Side::A);
                remove_from_selection(lab, scenario, flow, exit);
                lab.send(Side::Provider, &first[1])
                    .expect_dropped(DropReason::BackendRemoved);
                let second = flow.answer(&[2; 3_000]).fragments(1_200, 2);
                refused(
                    &lab.send(Side::Provider, &second[0]),
                    DropReason::BackendRemoved,
                );
                lab.send(Side::Provider, &second[1])
                    .expect_dropped(DropReason::FragmentOrphan);
            });
        },
    ),
    (
        "ICMP errors about a flow whose backend left go nowhere, half-open and established",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                for established in [false, true] {
                    lab.reset();
                    let (flow, question) = open_udp_flow(lab, scenario);
                    let answer = lab.send(Side::Provider, &flow.answer(b"answer"));
                    let answer = answer.expect_forwarded(Side::A).packet;
                    if established {
                        lab.send(Side::A, &scenario.question(b"question"))
                            .expect_forwarded(Side::Provider);
                    }
                    remove_from_selection(lab, scenario, flow, exit);
                    let kind = port_unreachable(scenario.provider_is_v4());
                    let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &question, 500);
                    lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                        .expect_dropped(DropReason::BackendRemoved);
                    let kind = port_unreachable(scenario.is_v4());
                    let ends = (scenario.client_ip(), scenario.endpoint_ip());
                    let refusal = error(ends.0, ends.1, kind, 0, &answer, 500);
                    lab.send(Side::A, &refusal)
                        .expect_dropped(DropReason::BackendRemoved);
                }
            });
        },
    ),
    (
        "a backend that left changes nothing of the flow: its reset is counted",
        |lab, scenario| {
            for_each_departure(lab, |lab, exit| {
                let flow = scenario.connect(lab);
                remove_from_selection(lab, scenario, flow, exit);
                let reset = flow.segment().with_flags(RST, 5_001, 0);
                lab.send(Side::Provider, &reset)
                    .expect_dropped(DropReason::BackendRemoved);
                // As long as the connection is not over, the client's SYN opens another.
                lab.send(Side::A, &scenario.from_client())
                    .expect_tcp_reset(DropReason::BackendRemoved);
                let out = lab.send(Side::A, &scenario.segment().syn(9));
                assert_ne!(scenario.went_to_service(&out, 8_443).backend, flow.backend);
            });
        },
    ),
    (
        "a backend that takes no new flows keeps those it has, both ways",
        |lab, scenario| {
            for keep in ["drain", "unhealthy"] {
                for established in [false, true] {
                    lab.reset();
                    let syn = lab.send(Side::A, &scenario.segment().syn(1_000));
                    let tcp = scenario.went_to_service(&syn, 8_443);
                    let udp = if established {
                        scenario.connect(lab);
                        open_answered_udp_flow(lab, scenario)
                    } else {
                        open_udp_flow(lab, scenario).0
                    };
                    for flow in [tcp, udp] {
                        if keep == "drain" {
                            change_backend(lab, scenario, flow, |backends, index| {
                                backends[index]["drain"] = true.into();
                            });
                        } else {
                            lab.mark_unhealthy(scenario.service, flow.backend.ip());
                        }
                    }
                    let segment = if established {
                        tcp.from_backend()
                    } else {
                        tcp.segment().syn_ack(5_000, 1_001)
                    };
                    lab.send(Side::Provider, &segment).expect_forwarded(Side::A);
                    lab.send(Side::A, &scenario.from_client())
                        .expect_forwarded(Side::Provider);
                    lab.send(Side::Provider, &tcp.from_backend().with_payload(b"more"))
                        .expect_forwarded(Side::A);
                    for _ in 0..3 {
                        lab.send(Side::Provider, &udp.answer(b"answer"))
                            .expect_forwarded(Side::A);
                        lab.send(Side::A, &scenario.question(b"question"))
                            .expect_forwarded(Side::Provider);
                    }
                }
            }
        },
    ),
    (
        "nobody answers for a flow whose consumer's entry was evicted",
        |lab, scenario| {
            let (flow, _) = open_udp_flow(lab, scenario);
            lab.evict_half_open(Side::A);
            let answer = flow.answer(b"answer");
            refused(&lab.send(Side::Provider, &answer), DropReason::NoFlow);
        },
    ),
    (
        "an entry's generation is not taken for a sequence number, nor the reverse",
        |lab, scenario| {
            let syn = lab.send(Side::A, &scenario.segment().syn(1_000));
            let flow = scenario.went_to_service(&syn, 8_443);
            // A backend whose sequence number is what a generation may be.
            lab.send(Side::Provider, &flow.segment().syn_ack(0, 1_001))
                .expect_forwarded(Side::A);
            lab.send(Side::A, &scenario.segment().ack(1_001, 1))
                .expect_forwarded(Side::Provider);
            assert_eq!(lab.flows(Table::Established), 1);
            remove_from_selection(lab, scenario, flow, Departure::Removed);
            lab.send(Side::Provider, &flow.segment().ack(1, 1_001))
                .expect_tcp_reset(DropReason::BackendRemoved);
        },
    ),
];

#[test]
fn packets_from_a_departed_backend_are_dropped() {
    run_scenarios(CASES);
}
