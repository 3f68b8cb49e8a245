//! Packets over IPv6 that are dropped or rejected, and revocation.

use super::*;
use crate::Case;
use gateway::model::Decision;
use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS_V6, ENDPOINT_V6, HTTPS, NAT_V6, PENDING_V6, Side, tcp_v6,
    },
    packet::flag::{ACK, RST},
};

pub(super) const CASES: &[Case] = &[
    ("a frame to another MAC address is dropped", |harness| {
        let mut syn = tcp_v6(CLIENT, WEB).syn(1);
        for mac in [
            [2, 9, 9, 9, 9, 9],
            [0x33, 0x33, 0, 0, 0, 1],
            [0x33, 0x33, 0xff, 0, 1, 0],
        ] {
            syn.to = mac;
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::DestinationMac);
        }
    }),
    ("martian sources open no flow", |harness| {
        for source in ["::", "::1", "::10.0.0.5", "ff02::1", "fd00::100"] {
            let source = (source.parse().expect("an address"), 40_000);
            harness
                .send(Side::A, &tcp_v6(source, WEB).syn(1))
                .expect_dropped(DropReason::MartianSource);
        }
    }),
    ("a pending connection forwards nothing", |harness| {
        let syn = tcp_v6(CLIENT, (PENDING_V6, HTTPS)).syn(1_000);
        let reset = harness
            .send(Side::A, &syn)
            .expect_tcp_reset(DropReason::ConnectionNotApproved);
        assert_eq!((reset.flags, reset.acknowledgement), (RST | ACK, 1_001));
        assert_eq!(harness.flows(PlaceState::HalfOpen), 0);
    }),
    ("a port that is not offered is rejected", |harness| {
        harness
            .send(Side::A, &tcp_v6(CLIENT, (ENDPOINT_V6, 80)).syn(1))
            .expect_tcp_reset(DropReason::PortNotOffered);
    }),
    (
        "a consumer can't reach a backend, an SNAT address or the host",
        |harness| {
            for address in [
                BACKENDS_V6[0],
                NAT_V6,
                "fd00::1".parse().expect("an address"),
            ] {
                harness
                    .send(Side::A, &tcp_v6(CLIENT, (address, 8_443)).syn(1))
                    .expect_dropped(DropReason::NoSuchEndpoint);
            }
        },
    ),
    (
        "a provider can't open a connection to a consumer",
        |harness| {
            let syn = tcp_v6((BACKENDS_V6[0], 8_443), (NAT_V6, 2_000))
                .syn(1)
                .with_source_mac(BACKEND_MAC);
            harness
                .send(Side::Provider, &syn)
                .expect_tcp_reset(DropReason::NoFlow);
        },
    ),
    ("a revoked approval ends flows on both sides", |harness| {
        let (nat, backend) = connect(harness);
        harness.decide("a/web6", Decision::Reject);
        harness
            .send(Side::A, &tcp_v6(CLIENT, WEB).ack(1_001, 5_001))
            .expect_tcp_reset(DropReason::ConnectionRevoked);
        let back = tcp_v6(backend, nat)
            .with_source_mac(BACKEND_MAC)
            .ack(5_001, 1_001);
        harness
            .send(Side::Provider, &back)
            .expect_tcp_reset(DropReason::ConnectionRevoked);
    }),
    ("an evicted flow is opened again", |harness| {
        let syn = tcp_v6(CLIENT, WEB).syn(1);
        for side in [Side::A, Side::Provider] {
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            harness.evict_half_open(side);
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
        }
    }),
];
