//! Who may not, and what he is told.

use std::net::Ipv4Addr;

use gateway_common::{DropReason, Verdict, drop_reason::Attribution, flow::Table, maps::Statistic};
use serde_json::json;
use tests::{
    datapath::differential::{
        ALL_PORTS_ENDPOINT, BACKEND_MAC, BACKENDS, CLIENT, DROPPING_ENDPOINT, DifferentialHarness,
        ENDPOINT, HTTPS, NAT, NO_BACKENDS_ENDPOINT, PENDING, Side, icmp, tcp, udp,
    },
    packet::{
        Packet,
        flag::{ACK, FIN, RST, SYN},
    },
};

use crate::{Case, run_cases};

const CLIENT_SOCKET: (Ipv4Addr, u16) = (CLIENT, 40_000);
const WEB: (Ipv4Addr, u16) = (ENDPOINT, HTTPS);

const CASES: &[Case] = &[
    (
        "a connection that waits for approval carries nothing",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (PENDING, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::ConnectionNotApproved);
            let datagram = udp(CLIENT_SOCKET, (PENDING, 53), b"question");
            let error = harness
                .send(Side::A, &datagram)
                .expect_icmp_error(DropReason::ConnectionNotApproved);
            assert_eq!((error.kind, error.source), ((3, 13), PENDING.into()));
            error.expect_embedded(&datagram);
            assert_eq!(
                (
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
                ),
                (0, 0)
            );
        },
    ),
    (
        "one that waits says nothing to who can't have asked",
        |harness| {
            let group = (Ipv4Addr::new(224, 0, 0, 1), 40_000);
            let syn = tcp(group, (PENDING, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::MartianSource);
            let mut syn = tcp(CLIENT_SOCKET, (PENDING, HTTPS)).syn(1);
            syn.from[0] |= 1;
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
    (
        "one that waits for a silent service says nothing",
        |harness| {
            harness.change_web_service(|spec| spec["unmatched_packet_action"] = "drop".into());
            let syn = tcp(CLIENT_SOCKET, (PENDING, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::ConnectionNotApproved);
        },
    ),
    ("the reset of a SYN acknowledges it (RFC 9293)", |harness| {
        let syn = tcp(CLIENT_SOCKET, (PENDING, HTTPS)).syn(1_000);
        let reset = harness
            .send(Side::A, &syn)
            .expect_tcp_reset(DropReason::ConnectionNotApproved);
        assert_eq!(
            (reset.flags, reset.sequence, reset.acknowledgement),
            (RST | ACK, 0, 1_001)
        );
        assert_eq!((reset.source, reset.destination), (HTTPS, 40_000));
    }),
    (
        "the reset of a SYN with data acknowledges that as well",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (PENDING, HTTPS))
                .syn(1_000)
                .with_payload(b"fast open");
            let reset = harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::ConnectionNotApproved);
            assert_eq!(reset.acknowledgement, 1_010);
        },
    ),
    (
        "the reset of an acknowledgement stands where the peer expects it",
        |harness| {
            let stray = tcp(CLIENT_SOCKET, WEB).ack(77, 4_711);
            let reset = harness
                .send(Side::A, &stray)
                .expect_tcp_reset(DropReason::NoFlow);
            assert_eq!(
                (reset.flags, reset.sequence, reset.acknowledgement),
                (RST, 4_711, 0)
            );
        },
    ),
    (
        "the reset of a long segment carries none of its bytes",
        |harness| {
            let stray = tcp(CLIENT_SOCKET, WEB)
                .ack(77, 4_711)
                .with_payload(&[0xee; 1_000]);
            let out = harness.send(Side::A, &stray);
            out.expect_tcp_reset(DropReason::NoFlow);
            assert_eq!(out.frame.len(), 60);
            assert!(!out.frame.contains(&0xee), "{:02x?}", out.frame);
        },
    ),
    ("a reset is never answered with one", |harness| {
        for flags in [RST, RST | ACK] {
            let reset = tcp(CLIENT_SOCKET, WEB).with_flags(flags, 1, 1);
            harness
                .send(Side::A, &reset)
                .expect_dropped(DropReason::NoFlow);
        }
    }),
    ("only a SYN alone opens a flow", |harness| {
        for flags in [0, ACK, FIN, SYN | ACK, SYN | FIN, FIN | ACK] {
            let segment = tcp(CLIENT_SOCKET, WEB).with_flags(flags, 1, 1);
            harness
                .send(Side::A, &segment)
                .expect_tcp_reset(DropReason::NoFlow);
        }
        assert_eq!(harness.flows(Table::HalfOpen), 0);
    }),
    ("a port that is not offered is refused", |harness| {
        for port in [1, 80, 442, 444, 8_443, 65_535] {
            let syn = tcp(CLIENT_SOCKET, (ENDPOINT, port)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::PortNotOffered);
        }
    }),
    (
        "a port that is offered by UDP is not offered by TCP",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (ENDPOINT, 53)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::PortNotOffered);
        },
    ),
    ("port 0 is no wildcard for the client", |harness| {
        harness
            .send(Side::A, &tcp(CLIENT_SOCKET, (ENDPOINT, 0)).syn(1))
            .expect_tcp_reset(DropReason::PortNotOffered);
    }),
    ("a consumer can't reach a backend", |harness| {
        for address in BACKENDS {
            let syn = tcp(CLIENT_SOCKET, (address, 8_443)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::NoSuchEndpoint);
        }
    }),
    ("a consumer can't reach a source NAT address", |harness| {
        harness
            .send(Side::A, &tcp(CLIENT_SOCKET, (NAT, 2_000)).syn(1))
            .expect_dropped(DropReason::NoSuchEndpoint);
        harness
            .send(Side::A, &icmp(CLIENT, NAT, 8, 0, &[0; 4]))
            .expect_dropped(DropReason::NoSuchEndpoint);
    }),
    ("a consumer can't reach the host", |harness| {
        let host = Ipv4Addr::new(10, 0, 0, 1);
        harness
            .send(Side::A, &tcp(CLIENT_SOCKET, (host, 22)).syn(1))
            .expect_dropped(DropReason::NoSuchEndpoint);
        harness
            .send(Side::A, &udp(CLIENT_SOCKET, (host, 53), b"x"))
            .expect_dropped(DropReason::NoSuchEndpoint);
    }),
    (
        "a consumer can't reach another consumer's endpoint",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (ALL_PORTS_ENDPOINT, HTTPS))
                .syn(1)
                .sent_to(Side::B);
            harness
                .send(Side::B, &syn)
                .expect_dropped(DropReason::NoSuchEndpoint);
        },
    ),
    (
        "a provider can't open a connection to a consumer",
        |harness| {
            let syn = tcp((BACKENDS[0], 8_443), (NAT, 2_000))
                .syn(1)
                .with_source_mac(BACKEND_MAC);
            harness
                .send(Side::Provider, &syn)
                .expect_tcp_reset(DropReason::NoFlow);
            let datagram = udp((BACKENDS[0], 53), (NAT, 2_000), b"x").with_source_mac(BACKEND_MAC);
            let error = harness
                .send(Side::Provider, &datagram)
                .expect_icmp_error(DropReason::NoFlow);
            assert_eq!((error.kind, error.source), ((3, 3), NAT.into()));
        },
    ),
    (
        "what a backend sends to others passes to the host, untouched",
        |harness| {
            let packet = tcp((BACKENDS[0], 8_443), (CLIENT, 40_000))
                .ack(1, 1)
                .with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &packet).expect_passed(&packet);
        },
    ),
    ("in an isolated provider's network it does not", |harness| {
        harness.change_network("shop/net", |network| network["isolated"] = true.into());
        let packet = tcp((BACKENDS[0], 8_443), (CLIENT, 40_000))
            .ack(1, 1)
            .with_source_mac(BACKEND_MAC);
        harness
            .send(Side::Provider, &packet)
            .expect_dropped(DropReason::NoSuchEndpoint);
    }),
    ("sources that no host can have open nothing", |harness| {
        for source in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            let source = (source.parse().expect("an address"), 40_000);
            harness
                .send(Side::A, &tcp(source, WEB).syn(1))
                .expect_dropped(DropReason::MartianSource);
            harness
                .send(Side::A, &udp(source, WEB, b"x"))
                .expect_dropped(DropReason::MartianSource);
        }
    }),
    ("an endpoint does not talk to itself", |harness| {
        let syn = tcp((ENDPOINT, 40_000), WEB).syn(1);
        harness
            .send(Side::A, &syn)
            .expect_dropped(DropReason::MartianSource);
    }),
    (
        "a frame from a group of stations opens nothing",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, WEB)
                .syn(1)
                .with_source_mac([1, 0, 94, 0, 0, 1]);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
    (
        "without a backend a connection is refused at once",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (NO_BACKENDS_ENDPOINT, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::NoBackend);
            let datagram = udp(CLIENT_SOCKET, (NO_BACKENDS_ENDPOINT, 53), b"x");
            let error = harness
                .send(Side::A, &datagram)
                .expect_icmp_error(DropReason::NoBackend);
            assert_eq!(
                (error.kind, error.source),
                ((3, 1), NO_BACKENDS_ENDPOINT.into())
            );
        },
    ),
    (
        "or met with silence, where the provider wants that",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (DROPPING_ENDPOINT, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::NoBackend);
        },
    ),
    ("backends that do not answer ARP take no flows", |harness| {
        for backend in BACKENDS {
            harness.set_reachable(backend, false);
        }
        harness
            .send(Side::A, &tcp(CLIENT_SOCKET, WEB).syn(1))
            .expect_tcp_reset(DropReason::NoBackend);
    }),
    ("one of two that does not leaves the other", |harness| {
        harness.set_reachable(BACKENDS[0], false);
        for port in 40_000..40_020 {
            let out = harness.send(Side::A, &tcp((CLIENT, port), WEB).syn(1));
            let (_, (backend, _)) = out.expect_forwarded(Side::Provider).sockets();
            assert_eq!(backend, BACKENDS[1]);
        }
    }),
    ("a flow to a backend that is lost waits for it", |harness| {
        let flow = harness.connect(40_000);
        for backend in BACKENDS {
            harness.set_reachable(backend, false);
        }
        harness
            .send(Side::A, &flow.client_ack())
            .expect_dropped(DropReason::NoBackend);
        for backend in BACKENDS {
            harness.set_reachable(backend, true);
        }
        harness
            .send(Side::A, &flow.client_ack())
            .expect_forwarded(Side::Provider);
    }),
    ("a flow to a backend that was removed is reset", |harness| {
        let flow = harness.connect(40_000);
        let left: Vec<_> = BACKENDS
            .iter()
            .filter(|address| **address != flow.backend.0)
            .collect();
        harness.set_backends(&json!([{ "address": left[0] }]));
        harness
            .send(Side::A, &flow.client_ack())
            .expect_tcp_reset(DropReason::BackendRemoved);
        let again = harness.send(Side::A, &tcp(flow.client, flow.endpoint).syn(9));
        let (_, (backend, _)) = again.expect_forwarded(Side::Provider).sockets();
        assert_eq!(backend, *left[0]);
    }),
    (
        "a UDP flow to a backend that was removed finds another",
        |harness| {
            let question = udp(CLIENT_SOCKET, (ENDPOINT, 53), b"question");
            let out = harness
                .send(Side::A, &question)
                .expect_forwarded(Side::Provider);
            let (_, (first, _)) = out.sockets();
            let left: Vec<_> = BACKENDS
                .iter()
                .filter(|address| **address != first)
                .collect();
            harness.set_backends(&json!([{ "address": left[0] }]));
            let out = harness
                .send(Side::A, &question)
                .expect_forwarded(Side::Provider);
            let (_, (second, _)) = out.sockets();
            assert_eq!(second, *left[0]);
        },
    ),
    (
        "a draining backend keeps its flows and takes no new ones",
        |harness| {
            let flow = harness.connect(40_000);
            let drained = flow.backend.0;
            let backends: Vec<_> = BACKENDS
                .iter()
                .map(|address| json!({ "address": address, "drain": *address == drained }))
                .collect();
            harness.set_backends(&json!(backends));
            harness
                .send(Side::A, &flow.client_ack())
                .expect_forwarded(Side::Provider)
                .expect_sockets(flow.nat, flow.backend);
            for port in 41_000..41_020 {
                let out = harness.send(Side::A, &tcp((CLIENT, port), WEB).syn(1));
                let (_, (backend, _)) = out.expect_forwarded(Side::Provider).sockets();
                assert_ne!(backend, drained);
            }
        },
    ),
    (
        "with the provider's interface gone, a flow is dropped and new ones are refused",
        |harness| {
            let flow = harness.connect(40_000);
            harness.set_interface_up(Side::Provider, false);
            harness
                .send(Side::A, &flow.client_ack())
                .expect_dropped(DropReason::NoBackend);
            harness
                .send(Side::A, &tcp((CLIENT, 41_000), WEB).syn(1))
                .expect_tcp_reset(DropReason::NoBackend);
            harness.set_interface_up(Side::Provider, true);
            harness
                .send(Side::A, &flow.client_ack())
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "with the consumer's interface gone, answers are dropped",
        |harness| {
            let flow = harness.connect(40_000);
            harness.set_interface_up(Side::A, false);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_dropped(DropReason::EgressUnavailable);
            harness.set_interface_up(Side::A, true);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
        },
    ),
    (
        "a flood is not answered by a flood: so many refusals a second, and no more",
        |harness| {
            // Ten a second, in a world whose clock is set.
            harness.native_maps().reject_cost = 100_000_000;
            let stray = tcp(CLIENT_SOCKET, WEB).ack(1, 1);
            let answered = |harness: &mut DifferentialHarness| -> usize {
                let verdicts = (0..40).map(|_| harness.send_native(Side::A, &stray));
                let resets = verdicts.filter(|verdict| {
                    let (reset, silent) = (
                        matches!(
                            verdict,
                            Verdict::TcpReset(Attribution {
                                reason: DropReason::NoFlow,
                                ..
                            })
                        ),
                        matches!(
                            verdict,
                            Verdict::Drop(Attribution {
                                reason: DropReason::NoFlow,
                                ..
                            })
                        ),
                    );
                    assert!(reset || silent, "{verdict:?}");
                    reset
                });
                resets.count()
            };
            assert_eq!(answered(harness), 10, "a second's worth at once");
            assert_eq!(answered(harness), 0, "and no more in that moment");
            harness.native_maps().extra_nanoseconds += 300_000_000;
            assert_eq!(answered(harness), 3, "then as time goes by");
            harness.native_maps().extra_nanoseconds += 60_000_000_000;
            assert_eq!(
                answered(harness),
                10,
                "and never more than a second's worth"
            );
            let suppressed = harness.native_maps().statistics[&Statistic::RejectsSuppressed];
            assert_eq!(suppressed, 4 * 40 - 23);
        },
    ),
    // What the kernel can't be made to do, or only in a moment that can't be met, is shown natively.
    ("what the helpers do not cut down is dropped", |harness| {
        harness.native_maps().helpers_fail = true;
        let stray = tcp(CLIENT_SOCKET, WEB).ack(1, 1).with_payload(&[7; 100]);
        expect_native_reject(harness, &stray, DropReason::BufferAdjustFailed);
        let elsewhere = udp(CLIENT_SOCKET, (ENDPOINT, 54), b"x");
        expect_native_reject(harness, &elsewhere, DropReason::BufferAdjustFailed);
    }),
    (
        "a checksum that the helpers do not complete drops the packet",
        |harness| {
            harness.native_maps().helpers_fail = true;
            let syn = tcp(CLIENT_SOCKET, WEB).syn(1).bytes(true);
            let verdict = harness.send_native_bytes(Side::A, &syn);
            assert!(
                matches!(
                    verdict,
                    Verdict::Drop(Attribution {
                        reason: DropReason::ChecksumOffloadFailed,
                        ..
                    })
                ),
                "{verdict:?}"
            );
        },
    ),
    (
        "a backend's slot that was given to another resource takes no flow",
        |harness| {
            for backend in harness.native_maps().backends.values_mut() {
                backend.resource ^= 1;
            }
            expect_native_reject(
                harness,
                &tcp(CLIENT_SOCKET, WEB).syn(1),
                DropReason::ConfigRace,
            );
        },
    ),
    (
        "a source NAT address that was given to another service is not used",
        |harness| {
            for nat in harness.native_maps().nat_addresses.values_mut() {
                nat.service ^= 1;
            }
            expect_native_reject(
                harness,
                &tcp(CLIENT_SOCKET, WEB).syn(1),
                DropReason::ConfigRace,
            );
        },
    ),
    (
        "without a source NAT address of the backend's family nothing goes there",
        |harness| {
            for port in harness.native_maps().ports.values_mut() {
                port.nat_size_v4 = 0;
            }
            let verdict = harness.send_native(Side::A, &tcp(CLIENT_SOCKET, WEB).syn(1));
            assert!(
                matches!(
                    verdict,
                    Verdict::TcpReset(Attribution {
                        reason: DropReason::FamilyMismatch,
                        ..
                    })
                ),
                "{verdict:?}"
            );
        },
    ),
];

/// The native stages drop the packet for this reason.
#[track_caller]
fn expect_native_reject(harness: &mut DifferentialHarness, packet: &Packet, reason: DropReason) {
    let verdict = harness.send_native(Side::A, packet);
    assert!(
        matches!(verdict, Verdict::Drop(Attribution { reason: found, .. }) if found == reason),
        "{verdict:?}, not dropped for {reason:?}"
    );
}

#[test]
fn disallowed_packets_are_rejected_with_reset_or_icmp_error() {
    run_cases(CASES);
}
