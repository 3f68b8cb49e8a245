//! Resets and errors for connections that are not approved, and the numbers of resets.

use super::*;
use crate::Case;
use gateway_common::{DropReason, flow::PlaceState};
use std::net::Ipv4Addr;
use tests::{
    datapath::differential::{HTTPS, PENDING, Side, tcp, udp},
    packet::flag::{ACK, FIN, RST, SYN},
};

pub(super) const CASES: &[Case] = &[
    ("a pending connection forwards nothing", |harness| {
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
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (0, 0)
        );
    }),
    (
        "a pending connection does not reject packets of martian sources",
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
        "a pending connection to a service that drops unmatched packets rejects nothing",
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
        "the reset of an acknowledgement has the sequence number that the peer expects",
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
    ("the reset of a long segment has no payload", |harness| {
        let stray = tcp(CLIENT_SOCKET, WEB)
            .ack(77, 4_711)
            .with_payload(&[0xee; 1_000]);
        let out = harness.send(Side::A, &stray);
        out.expect_tcp_reset(DropReason::NoFlow);
        assert_eq!(out.frame.len(), 60);
        assert!(!out.frame.contains(&0xee), "{:02x?}", out.frame);
    }),
    ("a reset is never answered with a reset", |harness| {
        for flags in [RST, RST | ACK] {
            let reset = tcp(CLIENT_SOCKET, WEB).with_flags(flags, 1, 1);
            harness
                .send(Side::A, &reset)
                .expect_dropped(DropReason::NoFlow);
        }
    }),
    ("only a SYN without other flags opens a flow", |harness| {
        for flags in [0, ACK, FIN, SYN | ACK, SYN | FIN, FIN | ACK] {
            let segment = tcp(CLIENT_SOCKET, WEB).with_flags(flags, 1, 1);
            harness
                .send(Side::A, &segment)
                .expect_tcp_reset(DropReason::NoFlow);
        }
        assert_eq!(harness.flows(PlaceState::HalfOpen), 0);
    }),
];
