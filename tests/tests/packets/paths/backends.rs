//! Backends that were removed or failed their health check: their flows end, in both directions.

use gateway_common::{DropReason, flow::Table};
use serde_json::Value;
use tests::{
    lab::{BACKEND_MAC, DNS, Lab, Side},
    packet::flag::RST,
    path::{Ends, Path, error, refused},
};

use super::{asked, port_unreachable};
use crate::{PathRow, run_paths};

/// Cause of a backend leaving.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Removed,
    Unhealthy,
}

const EXITS: [Exit; 2] = [Exit::Removed, Exit::Unhealthy];

/// Changes the flow's backend in the service's specification.
fn change_backend(lab: &mut Lab, path: Path, flow: Ends, edit: impl Fn(&mut Vec<Value>, usize)) {
    let address = flow.backend.ip().to_string();
    lab.change(path.service, |spec| {
        let backends = spec["resources"][0]["backends"].as_array_mut();
        let backends = backends.expect("a list");
        let place = backends
            .iter()
            .position(|b| b["address"] == address.as_str());
        edit(backends, place.expect("a backend"));
    });
}

/// Makes the flow's backend leave.
fn leave(lab: &mut Lab, path: Path, flow: Ends, exit: Exit) {
    match exit {
        Exit::Removed => change_backend(lab, path, flow, |backends, place| {
            backends.remove(place);
        }),
        Exit::Unhealthy => {
            lab.change(path.service, |spec| {
                spec["health_check"]["unhealthy_flows"] = "reset".into();
            });
            lab.unhealthy(path.service, flow.backend.ip());
        }
    }
}

/// Runs a row for each way in which a backend can leave.
fn each_exit(lab: &mut Lab, row: impl Fn(&mut Lab, Exit)) {
    for exit in EXITS {
        lab.reset();
        println!("{exit:?}");
        row(lab, exit);
    }
}

/// Opens a UDP flow, as far as both sides agree to it.
#[track_caller]
fn converse(lab: &mut Lab, path: Path) -> Ends {
    let (flow, _) = asked(lab, path);
    lab.send(Side::Provider, &flow.answer(b"answer"))
        .forwarded(Side::A);
    lab.send(Side::A, &path.question(b"question"))
        .forwarded(Side::Provider);
    flow
}

const ROWS: &[PathRow] = &[
    (
        "a TCP connection to a backend that left is reset, to both sides",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let flow = path.connect(lab);
                leave(lab, path, flow, exit);
                let data = flow.from_backend().data(b"more");
                let reset = lab
                    .send(Side::Provider, &data)
                    .reset(DropReason::BackendGone);
                assert_eq!(reset.sequence, 1_001);
                let data = path.from_client().data(b"more");
                let reset = lab.send(Side::A, &data).reset(DropReason::BackendGone);
                assert_eq!(reset.sequence, 5_001);
            });
        },
    ),
    (
        "a TCP connection that is half-open when its backend leaves is reset, to both sides",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let syn = lab.send(Side::A, &path.segment().syn(1_000));
                let flow = path.went_to_service(&syn, 8_443);
                leave(lab, path, flow, exit);
                lab.send(Side::Provider, &flow.segment().syn_ack(5_000, 1_001))
                    .reset(DropReason::BackendGone);
                lab.send(Side::A, &path.from_client())
                    .reset(DropReason::BackendGone);
            });
        },
    ),
    (
        "a backend that left sends no datagrams, and the client finds another",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let flow = converse(lab, path);
                leave(lab, path, flow, exit);
                let answer = flow.answer(b"answer");
                lab.send(Side::Provider, &answer)
                    .error(DropReason::BackendGone)
                    .about(&answer);
                let out = lab.send(Side::A, &path.question(b"question"));
                assert_ne!(path.went_to_service(&out, DNS).backend, flow.backend);
                assert_eq!(lab.flows(Table::Established), 0);
            });
        },
    ),
    (
        "a backend that left does not answer a first datagram",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let (flow, _) = asked(lab, path);
                leave(lab, path, flow, exit);
                lab.send(Side::Provider, &flow.answer(b"answer"))
                    .error(DropReason::BackendGone);
            });
        },
    ),
    (
        "fragments of a backend that left are counted, of datagrams under way too",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let flow = converse(lab, path);
                let first = flow.answer(&[1; 3_000]).fragments(1_200, 1);
                lab.send(Side::Provider, &first[0]).forwarded(Side::A);
                leave(lab, path, flow, exit);
                lab.send(Side::Provider, &first[1])
                    .dropped(DropReason::BackendGone);
                let second = flow.answer(&[2; 3_000]).fragments(1_200, 2);
                refused(
                    &lab.send(Side::Provider, &second[0]),
                    DropReason::BackendGone,
                );
                lab.send(Side::Provider, &second[1])
                    .dropped(DropReason::FragmentOrphan);
            });
        },
    ),
    (
        "ICMP errors about a flow whose backend left go nowhere, half-open and established",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                for established in [false, true] {
                    lab.reset();
                    let (flow, question) = asked(lab, path);
                    let answer = lab.send(Side::Provider, &flow.answer(b"answer"));
                    let answer = answer.forwarded(Side::A).packet;
                    if established {
                        lab.send(Side::A, &path.question(b"question"))
                            .forwarded(Side::Provider);
                    }
                    leave(lab, path, flow, exit);
                    let kind = port_unreachable(path.provider_is_v4());
                    let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &question, 500);
                    lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
                        .dropped(DropReason::BackendGone);
                    let kind = port_unreachable(path.is_v4());
                    let ends = (path.client_ip(), path.endpoint_ip());
                    let refusal = error(ends.0, ends.1, kind, 0, &answer, 500);
                    lab.send(Side::A, &refusal).dropped(DropReason::BackendGone);
                }
            });
        },
    ),
    (
        "a backend that left changes nothing of the flow: its reset is counted",
        |lab, path| {
            each_exit(lab, |lab, exit| {
                let flow = path.connect(lab);
                leave(lab, path, flow, exit);
                let reset = flow.segment().flags(RST, 5_001, 0);
                lab.send(Side::Provider, &reset)
                    .dropped(DropReason::BackendGone);
                // As long as the connection is not over, the client's SYN opens another.
                lab.send(Side::A, &path.from_client())
                    .reset(DropReason::BackendGone);
                let out = lab.send(Side::A, &path.segment().syn(9));
                assert_ne!(path.went_to_service(&out, 8_443).backend, flow.backend);
            });
        },
    ),
    (
        "a backend that takes no new flows keeps those it has, both ways",
        |lab, path| {
            for keep in ["drain", "unhealthy"] {
                for established in [false, true] {
                    lab.reset();
                    let syn = lab.send(Side::A, &path.segment().syn(1_000));
                    let tcp = path.went_to_service(&syn, 8_443);
                    let udp = if established {
                        path.connect(lab);
                        converse(lab, path)
                    } else {
                        asked(lab, path).0
                    };
                    for flow in [tcp, udp] {
                        if keep == "drain" {
                            change_backend(lab, path, flow, |backends, place| {
                                backends[place]["drain"] = true.into();
                            });
                        } else {
                            lab.unhealthy(path.service, flow.backend.ip());
                        }
                    }
                    let segment = if established {
                        tcp.from_backend()
                    } else {
                        tcp.segment().syn_ack(5_000, 1_001)
                    };
                    lab.send(Side::Provider, &segment).forwarded(Side::A);
                    lab.send(Side::A, &path.from_client())
                        .forwarded(Side::Provider);
                    lab.send(Side::Provider, &tcp.from_backend().data(b"more"))
                        .forwarded(Side::A);
                    for _ in 0..3 {
                        lab.send(Side::Provider, &udp.answer(b"answer"))
                            .forwarded(Side::A);
                        lab.send(Side::A, &path.question(b"question"))
                            .forwarded(Side::Provider);
                    }
                }
            }
        },
    ),
    (
        "nobody answers for a flow whose consumer's entry was evicted",
        |lab, path| {
            let (flow, _) = asked(lab, path);
            lab.evict(Side::A);
            let answer = flow.answer(b"answer");
            refused(&lab.send(Side::Provider, &answer), DropReason::NoFlow);
        },
    ),
    (
        "an entry's generation is not taken for a sequence number, nor the reverse",
        |lab, path| {
            let syn = lab.send(Side::A, &path.segment().syn(1_000));
            let flow = path.went_to_service(&syn, 8_443);
            // A backend whose sequence number is what a generation may be.
            lab.send(Side::Provider, &flow.segment().syn_ack(0, 1_001))
                .forwarded(Side::A);
            lab.send(Side::A, &path.segment().ack(1_001, 1))
                .forwarded(Side::Provider);
            assert_eq!(lab.flows(Table::Established), 1);
            leave(lab, path, flow, Exit::Removed);
            lab.send(Side::Provider, &flow.segment().ack(1, 1_001))
                .reset(DropReason::BackendGone);
        },
    ),
];

#[test]
fn a_backend_that_left_is_not_heard() {
    run_paths(ROWS);
}
