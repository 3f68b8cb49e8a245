//! Services without usable backends, and flows whose backend or interface is gone.

use super::*;
use crate::Case;
use gateway_common::DropReason;
use serde_json::json;
use tests::datapath::differential::{
    BACKENDS, CLIENT, DROPPING_ENDPOINT, ENDPOINT, HTTPS, NO_BACKENDS_ENDPOINT, Side, tcp, udp,
};

pub(super) const CASES: &[Case] = &[
    (
        "without a backend a connection is rejected at once",
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
        "without a backend a connection is dropped if no_backend_action is drop",
        |harness| {
            let syn = tcp(CLIENT_SOCKET, (DROPPING_ENDPOINT, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::NoBackend);
        },
    ),
    (
        "backends without a known MAC address get no flows",
        |harness| {
            for backend in BACKENDS {
                harness.set_reachable(backend, false);
            }
            harness
                .send(Side::A, &tcp(CLIENT_SOCKET, WEB).syn(1))
                .expect_tcp_reset(DropReason::NoBackend);
        },
    ),
    (
        "with one of two backends unreachable, flows go to the other",
        |harness| {
            harness.set_reachable(BACKENDS[0], false);
            for port in 40_000..40_020 {
                let out = harness.send(Side::A, &tcp((CLIENT, port), WEB).syn(1));
                let (_, (backend, _)) = out.expect_forwarded(Side::Provider).sockets();
                assert_eq!(backend, BACKENDS[1]);
            }
        },
    ),
    (
        "packets to an unreachable backend are dropped, and the flow is kept",
        |harness| {
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
        },
    ),
    ("a flow to a removed backend is reset", |harness| {
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
        "a UDP flow to a removed backend gets another backend",
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
        "a draining backend keeps its flows and gets no new ones",
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
        "with the provider's interface down, packets of flows are dropped and new flows are rejected",
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
        "with the consumer's interface down, replies are dropped",
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
];
