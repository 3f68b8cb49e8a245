//! What is the same in both families and both mixes: each row is run for the four of them.

mod backends;
mod errors;
mod identification;
mod limits;

use gateway_common::{DropReason, flow::Table};
use tests::{
    datapath::{
        assertions::{expect_rejected, sockets_of},
        differential::{CLIENT_MAC, DifferentialHarness, Side},
        scenario::{ProviderFlow, Scenario},
    },
    packet::{
        Content, Packet, Transport,
        builders::{ip_packet, udp_datagram},
        flag::{ACK, FIN, PSH, RST, SYN},
        fragments::{fragment_of, reassemble},
        read::{hop_limit, ip_parts, tcp_of},
    },
};

use crate::{ScenarioCase, run_scenarios};

/// A question that was sent to a server: its flow, and the packet as it left.
#[track_caller]
fn open_udp_flow(harness: &mut DifferentialHarness, scenario: Scenario) -> (ProviderFlow, Packet) {
    let sent = harness.send(Side::A, &scenario.client_datagram(b"question"));
    let flow = scenario.expect_forwarded_to_service(&sent, 53);
    (flow, sent.expect_forwarded(Side::Provider).packet)
}

/// The type and code of a port that is unreachable, in a family.
const fn port_unreachable(v4: bool) -> (u8, u8) {
    if v4 { (3, 3) } else { (1, 4) }
}

/// The bytes of a datagram that does not fit one packet, no two words of it alike.
fn payload_of(length: usize) -> Vec<u8> {
    (0..length / 2)
        .flat_map(|n| u16::try_from(n).expect("short").to_be_bytes())
        .collect()
}

/// Sends all of these; all must go on.
#[track_caller]
fn send_all_expect_forwarded(
    harness: &mut DifferentialHarness,
    from: Side,
    to: Side,
    packets: &[Packet],
) -> Vec<Packet> {
    let sent = packets
        .iter()
        .map(|p| harness.send(from, p).expect_forwarded(to).packet);
    sent.collect()
}

const CASES: &[ScenarioCase] = &[
    (
        "a SYN goes to a backend, one hop older",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_segment().syn(1));
            scenario.expect_forwarded_to_service(&out, 8_443);
            assert_eq!(hop_limit(&out.expect_forwarded(Side::Provider).packet), 63);
            assert_eq!(
                (
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
                ),
                (1, 0)
            );
        },
    ),
    (
        "a SYN that is sent again takes the same way",
        |harness, scenario| {
            let first = harness.send(Side::A, &scenario.client_segment().syn(1));
            let second = harness.send(Side::A, &scenario.client_segment().syn(1));
            assert_eq!(
                scenario.expect_forwarded_to_service(&first, 8_443),
                scenario.expect_forwarded_to_service(&second, 8_443)
            );
            assert_eq!(harness.flows(Table::HalfOpen), 1);
        },
    ),
    (
        "the answer comes from the endpoint, to the client's station",
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
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
                ),
                (0, 1)
            );
        },
    ),
    ("data goes both ways, unchanged", |harness, scenario| {
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
    }),
    (
        "a checksum left to hardware is completed, in every phase and both ways",
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
        "a half-closed connection carries on the other way",
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
            // A SYN is no new connection's while one direction is open.
            harness
                .send(Side::A, &scenario.client_segment().syn(90_000))
                .expect_forwarded(Side::Provider);
            assert_eq!(
                (
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
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
                .send(Side::Provider, &flow.backend_ack().add_flags(FIN))
                .expect_forwarded(Side::A);
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            let again = harness.send(Side::A, &scenario.client_segment().syn(90_000));
            scenario.expect_forwarded_to_service(&again, 8_443);
            assert_eq!(
                (
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
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
                    harness.flows(Table::HalfOpen),
                    harness.flows(Table::Established)
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
                assert_eq!(harness.flows(Table::Established), 0);
            }
        },
    ),
    (
        "a reset outside of the window is not carried (RFC 7857, section 2.2)",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            for sequence in [1_000, 0, 1_001 + 64_241, 1_001 + (1 << 31)] {
                harness
                    .send(
                        Side::A,
                        &scenario.client_segment().with_flags(RST, sequence, 0),
                    )
                    .expect_dropped(DropReason::ResetOutOfWindow);
            }
            for sequence in [5_000, 5_001 + 64_241] {
                harness
                    .send(
                        Side::Provider,
                        &flow
                            .backend_segment()
                            .with_flags(RST | ACK, sequence, 1_001),
                    )
                    .expect_dropped(DropReason::ResetOutOfWindow);
            }
            // And it changed nothing.
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(Table::Established), 1);
            harness
                .send(
                    Side::A,
                    &scenario.client_segment().with_flags(RST, 1_001 + 64_240, 0),
                )
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "a reset's window is as wide as its scale says (RFC 7323)",
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
            let far = 1_001 + (64_240 << 7);
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
    (
        "a segment size that does not fit both networks is made smaller",
        |harness, scenario| {
            let max_mss: u16 = if scenario.is_v4() && scenario.provider_is_v4() {
                1_460
            } else {
                1_440
            };
            for options in [
                vec![2, 4, 0xff, 0xff, 4, 2, 1, 1],
                vec![1, 2, 4, 0x23, 0x28, 1, 4, 2],
                vec![3, 3, 7, 2, 4, 0x05, 0xdc, 0],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                let found = &tcp_of(&out.packet).options;
                let at = options
                    .windows(2)
                    .position(|pair| pair == [2, 4])
                    .expect("the option");
                assert_eq!(found[at + 2..at + 4], max_mss.to_be_bytes());
                let rest = |bytes: &[u8]| [&bytes[..at + 2], &bytes[at + 4..]].concat();
                assert_eq!(rest(found), rest(&options));
            }
        },
    ),
    (
        "one that fits stays, and so do other options",
        |harness, scenario| {
            for options in [
                vec![2, 4, 2, 0x18, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
                vec![30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8],
                vec![],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "options that contradict themselves are carried as they are",
        |harness, scenario| {
            for options in [
                vec![2, 0, 0, 0],
                vec![2, 3, 9, 9],
                vec![3, 200, 1, 1],
                vec![5, 1, 1, 1],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "the largest that fits goes through, one byte more is answered with what fits",
        |harness, scenario| {
            scenario.connect(harness);
            let (head, fits) = match (scenario.is_v4(), scenario.provider_is_v4()) {
                (true, true) => (40, 1_500),
                (true, false) => (40, 1_480),
                (false, true) => (60, 1_520),
                (false, false) => (60, 1_500),
            };
            let full = |more: usize| {
                scenario.client_ack().with_payload(&vec![
                    7;
                    usize::try_from(fits).expect("small")
                        - head
                        + more
                ])
            };
            harness
                .send(Side::A, &full(0))
                .expect_forwarded(Side::Provider);
            let error = harness
                .send(Side::A, &full(1))
                .expect_icmp_error(DropReason::PacketTooBig);
            let kind = if scenario.is_v4() { (3, 4) } else { (2, 0) };
            assert_eq!((error.kind, error.rest), (kind, fits));
            assert_eq!(
                (error.source, error.destination),
                (scenario.endpoint_ip(), scenario.client_ip())
            );
            error.expect_embedded(&full(1));
        },
    ),
    ("the backend is told so too", |harness, scenario| {
        let flow = scenario.connect(harness);
        let full = |length| flow.backend_ack().with_payload(&vec![7; length]);
        let (head, fits) = match (scenario.provider_is_v4(), scenario.is_v4()) {
            (true, true) => (40, 1_500),
            (true, false) => (40, 1_480),
            (false, true) => (60, 1_520),
            (false, false) => (60, 1_500),
        };
        harness
            .send(Side::Provider, &full(fits - head))
            .expect_forwarded(Side::A);
        let out = harness.send(Side::Provider, &full(fits - head + 1));
        let error = out.expect_icmp_error(DropReason::PacketTooBig);
        assert_eq!(
            (error.source, error.destination),
            (flow.nat.ip(), flow.backend.ip())
        );
        error.expect_embedded(&full(fits - head + 1));
    }),
    (
        "a packet whose time ends here is answered, from either side",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let kind = |v4| if v4 { (11, 0) } else { (3, 0) };
            for left in [0, 1] {
                let there = scenario.client_ack().with_hop_limit(left);
                let error = harness
                    .send(Side::A, &there)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!(
                    (error.kind, error.source),
                    (kind(scenario.is_v4()), scenario.endpoint_ip())
                );
                error.expect_embedded(&there);
                let back = flow.backend_ack().with_hop_limit(left);
                let error = harness
                    .send(Side::Provider, &back)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!(
                    (error.kind, error.source),
                    (kind(scenario.provider_is_v4()), flow.nat.ip())
                );
                error.expect_embedded(&back);
            }
            let out = harness
                .send(Side::A, &scenario.client_ack().with_hop_limit(2))
                .expect_forwarded(Side::Provider);
            assert_eq!(hop_limit(&out.packet), 1);
        },
    ),
    ("a segment of no flow is reset", |harness, scenario| {
        let reset = harness
            .send(Side::A, &scenario.client_ack())
            .expect_tcp_reset(DropReason::NoFlow);
        assert_eq!((reset.flags, reset.sequence), (RST, 5_001));
    }),
    (
        "a service can have it met with silence",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| {
                spec["unmatched_packet_action"] = "drop".into()
            });
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_dropped(DropReason::NoFlow);
            let elsewhere = (scenario.endpoint_ip(), 54).into();
            harness
                .send(
                    Side::A,
                    &udp_datagram(scenario.client_socket(), elsewhere, b"x"),
                )
                .expect_dropped(DropReason::PortNotOffered);
        },
    ),
    (
        "both ends of a flow that is cut are told with their next packet",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            // Flows of the other family's table are looked for behind the gate.
            let reason = if scenario.name == "IPv4 to IPv6" {
                DropReason::ConnectionNotApproved
            } else {
                DropReason::ConnectionRevoked
            };
            let reset = harness
                .send(Side::A, &scenario.client_ack())
                .expect_tcp_reset(reason);
            assert_eq!(reset.sequence, 5_001);
            let reset = harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            assert_eq!(reset.sequence, 1_001);
        },
    ),
    (
        "a datagram of a flow that is cut is answered with an error",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&out, 53);
            harness.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            let kind = |v4| if v4 { (3, 13) } else { (1, 1) };
            let answer = flow.backend_datagram(b"answer");
            let error = harness
                .send(Side::Provider, &answer)
                .expect_icmp_error(DropReason::ConnectionRevoked);
            assert_eq!(error.kind, kind(scenario.provider_is_v4()));
            error.expect_embedded(&answer);
            let question = scenario.client_datagram(b"question");
            let error = harness
                .send(Side::A, &question)
                .expect_icmp_error(DropReason::ConnectionNotApproved);
            assert_eq!(error.kind, kind(scenario.is_v4()));
            error.expect_embedded(&question);
        },
    ),
    (
        "a flow whose backend left is reset, and opens anew",
        |harness, scenario| {
            scenario.connect(harness);
            harness.change_service(scenario.service, |spec| {
                let backends = spec["resources"][0]["backends"]
                    .as_array_mut()
                    .expect("a list");
                backends.clear();
            });
            expect_rejected(
                &harness.send(Side::A, &scenario.client_ack()),
                DropReason::BackendRemoved,
            );
            expect_rejected(
                &harness.send(Side::A, &scenario.client_segment().syn(9)),
                DropReason::NoBackend,
            );
        },
    ),
    ("a datagram goes there and back", |harness, scenario| {
        let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
        let flow = scenario.expect_forwarded_to_service(&out, 53);
        let back = harness
            .send(Side::Provider, &flow.backend_datagram(b"answer"))
            .expect_forwarded(Side::A);
        assert_eq!(
            sockets_of(&back),
            (scenario.dns_socket(), scenario.client_socket())
        );
        harness
            .send(Side::A, &scenario.client_datagram(b"question"))
            .expect_forwarded(Side::Provider);
        assert_eq!(
            (
                harness.flows(Table::HalfOpen),
                harness.flows(Table::Established)
            ),
            (0, 1)
        );
    }),
    (
        "a datagram's checksum left to hardware is completed",
        |harness, scenario| {
            for length in [0, 1, 7, 8, 511, 1_400] {
                let question = scenario.client_datagram(&vec![0x5a; length]);
                let out = harness.send_offloaded(Side::A, &question);
                let flow = scenario.expect_forwarded_to_service(&out, 53);
                harness
                    .send_offloaded(Side::Provider, &flow.backend_datagram(&vec![0xa5; length]))
                    .expect_forwarded(Side::A);
            }
        },
    ),
    (
        "a datagram without checksum goes on, with one where IPv6 wants it (RFC 7915)",
        |harness, scenario| {
            if !scenario.is_v4() {
                harness
                    .send(
                        Side::A,
                        &scenario.client_datagram(b"x").without_udp_checksum(),
                    )
                    .expect_dropped(DropReason::Malformed);
                return;
            }
            for length in [0, 1, 8, 1_001] {
                let question = scenario
                    .client_datagram(&vec![7; length])
                    .without_udp_checksum();
                let out = harness
                    .send(Side::A, &question)
                    .expect_forwarded(Side::Provider);
                match ip_parts(&out.packet).2 {
                    Transport::Udp(udp) => assert_eq!(udp.checksummed, scenario.is_translated()),
                    other => panic!("{other:?}"),
                }
            }
        },
    ),
    (
        "a datagram in fragments arrives whole, both ways",
        |harness, scenario| {
            let opening = harness.send(Side::A, &scenario.client_datagram(b"hello"));
            let flow = scenario.expect_forwarded_to_service(&opening, 53);
            let there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 0x1234);
            let out = send_all_expect_forwarded(harness, Side::A, Side::Provider, &there);
            assert_eq!(out.len(), 3);
            let ids: Vec<u32> = out.iter().map(|p| fragment_of(p).id).collect();
            assert_eq!(ids, [ids[0]; 3]);
            match ip_parts(&reassemble(&out)).2 {
                Transport::Udp(udp) => assert_eq!(udp.payload, payload_of(4_000)),
                other => panic!("{other:?}"),
            }
            let back = flow.backend_datagram(&payload_of(3_000));
            let back: Vec<Packet> = back.split_into_fragments(1_200, 0x77).into_iter().collect();
            let out = send_all_expect_forwarded(harness, Side::Provider, Side::A, &back);
            let whole = reassemble(&out);
            assert_eq!(ip_parts(&whole).0, scenario.endpoint_ip());
            match ip_parts(&whole).2 {
                Transport::Udp(udp) => assert_eq!((udp.source, udp.payload.len()), (53, 3_000)),
                other => panic!("{other:?}"),
            }
        },
    ),
    (
        "fragments open a flow as a whole datagram does, in any order behind the first",
        |harness, scenario| {
            let mut there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(800, 9);
            there[1..].reverse();
            let mut out = send_all_expect_forwarded(harness, Side::A, Side::Provider, &there);
            out[1..].reverse();
            match ip_parts(&reassemble(&out)).2 {
                Transport::Udp(udp) => assert_eq!(udp.payload, payload_of(4_000)),
                other => panic!("{other:?}"),
            }
            assert_eq!(harness.flows(Table::HalfOpen), 1);
        },
    ),
    (
        "a later fragment without its first is counted",
        |harness, scenario| {
            let there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 9);
            harness
                .send(Side::A, &there[1])
                .expect_dropped(DropReason::FragmentOrphan);
            harness
                .send(Side::A, &there[0])
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::A, &there[1])
                .expect_forwarded(Side::Provider);
            // Another datagram's first fragment does not help.
            let other = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 10);
            harness
                .send(Side::A, &other[1])
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "two consumers' fragments of the same identification do not meet",
        |harness, scenario| {
            let there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 9);
            harness
                .send(Side::A, &there[0])
                .expect_forwarded(Side::Provider);
            let elsewhere = there[1].clone().sent_to(Side::B);
            harness
                .send(Side::B, &elsewhere)
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "a TCP segment in fragments arrives whole",
        |harness, scenario| {
            scenario.connect(harness);
            let there = scenario
                .client_ack()
                .with_payload(&payload_of(2_000))
                .split_into_fragments(1_000, 3);
            let out = send_all_expect_forwarded(harness, Side::A, Side::Provider, &there);
            assert_eq!(tcp_of(&reassemble(&out)).payload, payload_of(2_000));
        },
    ),
    (
        "a first fragment too short for its header is counted (RFC 1858)",
        |harness, scenario| {
            scenario.connect(harness);
            let there = scenario
                .client_ack()
                .with_payload(&payload_of(2_000))
                .split_into_fragments(16, 3);
            harness
                .send(Side::A, &there[0])
                .expect_dropped(DropReason::Fragment);
        },
    ),
    (
        "a fragment that would overwrite the header is counted (RFC 3128)",
        |harness, scenario| {
            scenario.connect(harness);
            let there = scenario
                .client_ack()
                .with_payload(&payload_of(2_000))
                .split_into_fragments(1_000, 3);
            harness
                .send(Side::A, &there[0])
                .expect_forwarded(Side::Provider);
            let over = scenario
                .client_ack()
                .with_payload(&payload_of(100))
                .split_into_fragments(8, 3);
            for fragment in &over[1..3] {
                harness
                    .send(Side::A, fragment)
                    .expect_dropped(DropReason::Fragment);
            }
        },
    ),
    (
        "fragments that contradict themselves are counted",
        |harness, scenario| {
            let there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 9);
            harness
                .send(Side::A, &there[0])
                .expect_forwarded(Side::Provider);
            // More follow, though it ends at no multiple of eight bytes.
            let mut odd = there[1].clone();
            let mut beyond = there[2].clone();
            match (&mut odd.content, &mut beyond.content) {
                (Content::Ipv4(odd), Content::Ipv4(beyond)) => {
                    odd.transport = Transport::Other(17, vec![1; 13]);
                    beyond.fragment = 0x1fff;
                }
                (Content::Ipv6(odd), Content::Ipv6(beyond)) => {
                    odd.transport = Transport::Other(17, vec![1; 13]);
                    beyond.extensions[0].1[2..4].copy_from_slice(&0xfff8u16.to_be_bytes());
                }
                _ => panic!("no IP"),
            }
            harness
                .send(Side::A, &odd)
                .expect_dropped(DropReason::Malformed);
            harness
                .send(Side::A, &beyond)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "a fragment to a port that is not offered is refused, its rest counted",
        |harness, scenario| {
            let elsewhere = (scenario.endpoint_ip(), 54).into();
            let there = udp_datagram(scenario.client_socket(), elsewhere, &payload_of(2_000))
                .split_into_fragments(1_400, 9);
            harness
                .send(Side::A, &there[0])
                .expect_icmp_error(DropReason::PortNotOffered);
            harness
                .send(Side::A, &there[1])
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "ping in fragments is answered in fragments",
        |harness, scenario| {
            let kind = if scenario.is_v4() { 8 } else { 128 };
            let transport = Transport::Icmp(kind, 0, payload_of(3_000));
            let ping = ip_packet(scenario.client_ip(), scenario.endpoint_ip(), transport);
            let answers: Vec<Packet> = ping
                .split_into_fragments(1_400, 5)
                .iter()
                .map(|fragment| harness.send(Side::A, fragment).expect_reply())
                .collect();
            match ip_parts(&reassemble(&answers)).2 {
                Transport::Icmp(kind, 0, rest) => {
                    assert_eq!(
                        (*kind, rest),
                        (if scenario.is_v4() { 0 } else { 129 }, &payload_of(3_000))
                    );
                }
                other => panic!("{other:?}"),
            }
        },
    ),
];

#[test]
fn packets_are_forwarded_in_every_scenario() {
    run_scenarios(CASES);
}
