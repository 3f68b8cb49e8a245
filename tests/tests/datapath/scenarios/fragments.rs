//! Fragments of TCP segments, UDP datagrams and ICMP messages.

use super::*;
use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::differential::Side,
    packet::{
        Content, Packet, Transport,
        builders::{ip_packet, udp_datagram},
        fragments::{fragment_of, reassemble},
        read::{ip_parts, tcp_of},
    },
};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a fragmented datagram arrives whole, in both directions",
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
            assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
        },
    ),
    (
        "a later fragment without its first is dropped",
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
            // The first fragment of another datagram makes no difference.
            let other = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 10);
            harness
                .send(Side::A, &other[1])
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "fragments of two consumers with the same identification are separate",
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
        "a fragmented TCP segment arrives whole",
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
        "a first fragment too short for its L4 header is dropped (RFC 1858)",
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
        "a fragment that would overwrite the L4 header is dropped (RFC 3128)",
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
        "contradictory fragments are dropped",
        |harness, scenario| {
            let there = scenario
                .client_datagram(&payload_of(4_000))
                .split_into_fragments(1_400, 9);
            harness
                .send(Side::A, &there[0])
                .expect_forwarded(Side::Provider);
            // More fragments follow, though this one does not end at a multiple of eight bytes.
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
        "a first fragment to a port that is not offered is rejected, later fragments are dropped",
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
        "fragmented ping is answered in fragments",
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
