//! TCP and UDP flows over IPv6.

use super::*;
use crate::Case;
use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS_V6, CLIENT_MAC, NAT_V6, ROUTER_MAC, Side, tcp_v6, udp_v6,
    },
    packet::flag::FIN,
};

pub(super) const CASES: &[Case] = &[
    (
        "a SYN goes to a backend from an SNAT address, with a decremented TTL",
        |harness| {
            let out = harness
                .send(Side::A, &tcp_v6(CLIENT, WEB).syn(1))
                .expect_forwarded(Side::Provider);
            let ((nat, port), (backend, backend_port)) = out.sockets_v6();
            let within = u128::from(nat).wrapping_sub(u128::from(NAT_V6)) < 16;
            assert!(within && port >= 1_024, "{nat} {port}");
            assert!(BACKENDS_V6.contains(&backend) && backend_port == 8_443);
            assert_eq!((out.ipv6().hop_limit, out.packet.to), (63, BACKEND_MAC));
        },
    ),
    ("a handshake, data both ways, and the end", |harness| {
        let (nat, backend) = connect(harness);
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (0, 1)
        );
        let there = tcp_v6(CLIENT, WEB)
            .ack(1_001, 5_001)
            .with_payload(b"question");
        let out = harness
            .send(Side::A, &there)
            .expect_forwarded(Side::Provider);
        assert_eq!(out.sockets_v6(), (nat, backend));
        let back = tcp_v6(backend, nat)
            .with_source_mac(BACKEND_MAC)
            .ack(5_001, 1_009)
            .with_payload(b"answer");
        let out = harness
            .send(Side::Provider, &back)
            .expect_forwarded(Side::A)
            .expect_destination_mac(CLIENT_MAC);
        assert_eq!(out.sockets_v6(), (WEB, CLIENT));
        harness
            .send(Side::A, &there.add_flags(FIN))
            .expect_forwarded(Side::Provider);
        harness
            .send(Side::Provider, &back.add_flags(FIN))
            .expect_forwarded(Side::A);
        let last = [
            (Side::A, tcp_v6(CLIENT, WEB).ack(1_010, 5_008)),
            (
                Side::Provider,
                tcp_v6(backend, nat)
                    .with_source_mac(BACKEND_MAC)
                    .ack(5_008, 1_010),
            ),
        ];
        for (side, segment) in last {
            let other = if side == Side::A {
                Side::Provider
            } else {
                Side::A
            };
            harness.send(side, &segment).expect_forwarded(other);
        }
        assert_eq!(harness.flows(PlaceState::Closed), 1);
        harness
            .send(Side::A, &tcp_v6(CLIENT, WEB).syn(9))
            .expect_forwarded(Side::Provider);
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (1, 0)
        );
    }),
    ("a checksum left to hardware is completed", |harness| {
        let (nat, backend) = connect(harness);
        for length in [0, 1, 512, 1_439, 1_440] {
            let there = tcp_v6(CLIENT, WEB)
                .ack(1_001, 5_001)
                .with_payload(&vec![0xa5; length]);
            harness
                .send_offloaded(Side::A, &there)
                .expect_forwarded(Side::Provider);
            let back = tcp_v6(backend, nat)
                .with_source_mac(BACKEND_MAC)
                .ack(5_001, 1_001)
                .with_payload(&vec![1; length]);
            harness
                .send_offloaded(Side::Provider, &back)
                .expect_forwarded(Side::A);
        }
    }),
    (
        "a packet larger than the MTU is answered with the MTU",
        |harness| {
            connect(harness);
            let full = |length| {
                tcp_v6(CLIENT, WEB)
                    .ack(1_001, 5_001)
                    .with_payload(&vec![0; length])
            };
            harness
                .send(Side::A, &full(1_440))
                .expect_forwarded(Side::Provider);
            let error = harness
                .send(Side::A, &full(1_441))
                .expect_icmp_error(DropReason::PacketTooBig);
            assert_eq!((error.kind, error.rest), ((2, 0), 1_500));
            assert_eq!(error.expect_embedded(&full(1_441)).embedded.len(), 1_232);
        },
    ),
    (
        "a packet whose hop limit expires is answered with time exceeded",
        |harness| {
            connect(harness);
            for hop_limit in [0, 1] {
                let packet = tcp_v6(CLIENT, WEB)
                    .ack(1_001, 5_001)
                    .edit_ipv6(|ip| ip.hop_limit = hop_limit);
                let error = harness
                    .send(Side::A, &packet)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!((error.kind, error.source), ((3, 0), WEB.0.into()));
                error.expect_embedded(&packet);
            }
        },
    ),
    (
        "replies to a routed client go through its router",
        |harness| {
            let client = ("2001:db8::7".parse().expect("an address"), 40_000);
            let syn = tcp_v6(client, WEB).syn(1).with_source_mac(ROUTER_MAC);
            let (nat, backend) = harness
                .send(Side::A, &syn)
                .expect_forwarded(Side::Provider)
                .sockets_v6();
            let answer = tcp_v6(backend, nat)
                .with_source_mac(BACKEND_MAC)
                .syn_ack(7, 2);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A)
                .expect_destination_mac(ROUTER_MAC);
        },
    ),
    (
        "flows of two consumers with the same addresses are separate",
        |harness| {
            let syn = tcp_v6(CLIENT, WEB).syn(1);
            let a = harness
                .send(Side::A, &syn)
                .expect_forwarded(Side::Provider)
                .sockets_v6();
            let b = harness
                .send(Side::B, &syn.sent_to(Side::B))
                .expect_forwarded(Side::Provider)
                .sockets_v6();
            assert_ne!(a, b);
            for ((nat, backend), side) in [(a, Side::A), (b, Side::B)] {
                let answer = tcp_v6(backend, nat)
                    .with_source_mac(BACKEND_MAC)
                    .syn_ack(7, 2);
                harness.send(Side::Provider, &answer).expect_forwarded(side);
            }
        },
    ),
    ("datagrams are forwarded in both directions", |harness| {
        let question = udp_v6(CLIENT, NAME_SERVER, b"question");
        let (nat, backend) = harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider)
            .sockets_v6();
        let answer = udp_v6(backend, nat, b"answer").with_source_mac(BACKEND_MAC);
        let out = harness
            .send(Side::Provider, &answer)
            .expect_forwarded(Side::A);
        assert_eq!(out.sockets_v6(), (NAME_SERVER, CLIENT));
        harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider);
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (0, 1)
        );
    }),
    (
        "a datagram without checksum is malformed (RFC 8200)",
        |harness| {
            let question = udp_v6(CLIENT, NAME_SERVER, b"question").without_udp_checksum();
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::Malformed);
        },
    ),
];
