//! Neighbour discovery (RFC 4861) and ICMPv6 echo.

use super::*;
use crate::Case;
use gateway_common::DropReason;
use std::net::Ipv6Addr;
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS_V6, CLIENT_MAC, CLIENT_V6, ENDPOINT_V6, NAT_V6, Side, icmp_v6,
        neighbour_solicitation,
    },
    packet::{Content, Packet, Transport},
};

/// Returns a message of multicast listener discovery to all nodes, with the option Router Alert (RFC 2711).
fn multicast_listener_message(kind: u8) -> Packet {
    let router = "fe80::1".parse().expect("an address");
    let all_nodes = "ff02::1".parse().expect("an address");
    let mut packet = icmp_v6(router, all_nodes, kind, &[0; 24]).edit_ipv6(|ip| {
        ip.hop_limit = 1;
        ip.extensions = vec![(0, vec![0, 0, 5, 2, 0, 0, 1, 0])];
    });
    packet.to = [0x33, 0x33, 0, 0, 0, 1];
    packet
}

pub(super) const CASES: &[Case] = &[
    (
        "a neighbour solicitation for an endpoint is answered",
        |harness| {
            let answer = harness
                .send(Side::A, &neighbour_solicitation(ENDPOINT_V6, CLIENT_V6))
                .expect_reply();
            assert_eq!((answer.to, answer.from), (CLIENT_MAC, Side::A.mac()));
            // Solicited, override, no router.
            assert_eq!(advertisement(&answer), (CLIENT_V6, 0x60, ENDPOINT_V6));
        },
    ),
    (
        "a neighbour solicitation to the gateway's MAC address is answered",
        |harness| {
            let question = neighbour_solicitation(ENDPOINT_V6, CLIENT_V6).sent_to(Side::A);
            let question = question.edit_ipv6(|ip| ip.destination = ENDPOINT_V6);
            let answer = harness.send(Side::A, &question).expect_reply();
            assert_eq!(advertisement(&answer), (CLIENT_V6, 0x60, ENDPOINT_V6));
        },
    ),
    (
        "duplicate address detection is answered (RFC 4862)",
        |harness| {
            let probe = neighbour_solicitation(ENDPOINT_V6, Ipv6Addr::UNSPECIFIED);
            let answer = harness.send(Side::A, &probe).expect_reply();
            assert_eq!(answer.to, [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!(advertisement(&answer), (ALL_NODES, 0x20, ENDPOINT_V6));
        },
    ),
    (
        "a solicitation for an SNAT address is answered in the provider's network only",
        |harness| {
            let question = neighbour_solicitation(NAT_V6, BACKENDS_V6[0]);
            harness.send(Side::Provider, &question).expect_reply();
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "a solicitation for another address is dropped, or passed if the network is not isolated",
        |harness| {
            let question =
                neighbour_solicitation("fd00::200".parse().expect("an address"), CLIENT_V6);
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
            harness
                .send(Side::Provider, &question)
                .expect_passed(&question);
        },
    ),
    (
        "a multicast listener query is passed to the host, for the agent to answer (RFC 3810)",
        |harness| {
            let query = multicast_listener_message(130);
            for side in [Side::A, Side::Provider] {
                harness.send(side, &query).expect_passed(&query);
            }
        },
    ),
    (
        "another message with a router alert, and a query that was forwarded, are dropped on an isolated network",
        |harness| {
            let report = multicast_listener_message(143);
            let forwarded = multicast_listener_message(130).edit_ipv6(|ip| ip.hop_limit = 2);
            let of_no_router =
                multicast_listener_message(130).edit_ipv6(|ip| ip.source = CLIENT_V6);
            let other_option = multicast_listener_message(130)
                .edit_ipv6(|ip| ip.extensions = vec![(0, vec![0, 0, 0x85, 2, 0, 0, 1, 0])]);
            for packet in [report, forwarded, of_no_router, other_option] {
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::Ipv6Options);
            }
        },
    ),
    (
        "a solicitation from a multicast address, or from its target, is not answered",
        |harness| {
            for source in [ALL_NODES, ENDPOINT_V6] {
                harness
                    .send(Side::A, &neighbour_solicitation(ENDPOINT_V6, source))
                    .expect_dropped(DropReason::MartianSource);
            }
            let question = neighbour_solicitation(ENDPOINT_V6, CLIENT_V6)
                .with_source_mac([0x33, 0x33, 0, 0, 0, 1]);
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
    (
        "advertisements pass to the host in the provider's network",
        |harness| {
            let answer = icmp_v6(
                BACKENDS_V6[0],
                "fe80::1".parse().expect("an address"),
                136,
                &[&[0x60, 0, 0, 0], &BACKENDS_V6[0].octets()[..]].concat(),
            );
            let answer = answer
                .with_source_mac(BACKEND_MAC)
                .edit_ipv6(|ip| ip.hop_limit = 255);
            harness.send(Side::Provider, &answer).expect_passed(&answer);
        },
    ),
    ("ping is answered, with a new hop limit", |harness| {
        let ping = icmp_v6(CLIENT_V6, ENDPOINT_V6, 128, b"\x12\x34\0\x01hello")
            .edit_ipv6(|ip| ip.hop_limit = 3);
        let answer = harness.send(Side::A, &ping).expect_reply();
        match answer.content {
            Content::Ipv6(ip) => {
                assert_eq!(
                    (ip.source, ip.destination, ip.hop_limit),
                    (ENDPOINT_V6, CLIENT_V6, 64)
                );
                let rest = b"\x12\x34\0\x01hello".to_vec();
                assert_eq!(ip.transport, Transport::Icmp(129, 0, rest));
            }
            _ => panic!("{answer}"),
        }
    }),
    ("other ICMPv6 messages are dropped", |harness| {
        for kind in [129, 133, 134, 137] {
            harness
                .send(Side::A, &icmp_v6(CLIENT_V6, ENDPOINT_V6, kind, &[0; 20]))
                .expect_dropped(DropReason::IcmpUnsupported);
        }
    }),
];
