//! Ports and addresses that are not offered.

use super::*;
use crate::Case;
use gateway_common::DropReason;
use std::net::Ipv4Addr;
use tests::datapath::differential::{
    ALL_PORTS_ENDPOINT, BACKEND_MAC, BACKENDS, CLIENT, ENDPOINT, HTTPS, NAT, Side, icmp, tcp, udp,
};

pub(super) const CASES: &[Case] = &[
    ("a port that is not offered is rejected", |harness| {
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
    ("port 0 is no wildcard", |harness| {
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
    ("a consumer can't reach an SNAT address", |harness| {
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
        "packets of a backend to other destinations pass to the host unchanged",
        |harness| {
            let packet = tcp((BACKENDS[0], 8_443), (CLIENT, 40_000))
                .ack(1, 1)
                .with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &packet).expect_passed(&packet);
        },
    ),
    (
        "packets of a backend to other destinations are dropped in an isolated network",
        |harness| {
            harness.change_network("shop/net", |network| network["isolated"] = true.into());
            let packet = tcp((BACKENDS[0], 8_443), (CLIENT, 40_000))
                .ack(1, 1)
                .with_source_mac(BACKEND_MAC);
            harness
                .send(Side::Provider, &packet)
                .expect_dropped(DropReason::NoSuchEndpoint);
        },
    ),
    ("martian sources open no flow", |harness| {
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
    (
        "a packet from an endpoint to itself is dropped",
        |harness| {
            let syn = tcp((ENDPOINT, 40_000), WEB).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
    (
        "a frame from a multicast MAC address opens no flow",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, WEB)
                .syn(1)
                .with_source_mac([1, 0, 94, 0, 0, 1]);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
];
