//! Revocation: no packet is forwarded after an approval was withdrawn, on open flows neither.

use gateway::model::Decision;
use gateway_common::{DropReason, flow::PlaceState};
use tests::datapath::differential::{BACKEND_MAC, CLIENT, DNS, ENDPOINT, HTTPS, Side, tcp, udp};

use crate::{Case, run_cases};

const CASES: &[Case] = &[
    (
        "an established TCP connection is reset, to both sides",
        |harness| {
            let flow = harness.connect(40_000);
            harness.decide("a/web", Decision::Reject);
            let segment = flow.client_ack().with_payload(b"more");
            let reset = harness
                .send(Side::A, &segment)
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            assert_eq!(reset.sequence, 5_001);
            let reset = harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            assert_eq!(reset.sequence, 1_001);
        },
    ),
    (
        "a half-open TCP connection is reset, to both sides",
        |harness| {
            let client = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS));
            let syn = harness.send(Side::A, &client.clone().syn(1));
            let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
            harness.decide("a/web", Decision::Reject);
            let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC).syn_ack(7, 2);
            harness
                .send(Side::Provider, &answer)
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            harness
                .send(Side::A, &client.ack(2, 8))
                .expect_tcp_reset(DropReason::ConnectionRevoked);
        },
    ),
    (
        "both ends of a UDP flow get an ICMP error (RFC 792)",
        |harness| {
            let question = udp((CLIENT, 40_000), (ENDPOINT, DNS), b"question");
            let (nat, backend) = harness
                .send(Side::A, &question)
                .expect_forwarded(Side::Provider)
                .sockets();
            harness.decide("a/web", Decision::Reject);
            let answer = udp(backend, nat, b"answer").with_source_mac(BACKEND_MAC);
            let error = harness
                .send(Side::Provider, &answer)
                .expect_icmp_error(DropReason::ConnectionRevoked);
            assert_eq!(error.kind, (3, 13));
            let error = harness
                .send(Side::A, &question)
                .expect_icmp_error(DropReason::ConnectionNotApproved);
            assert_eq!(error.kind, (3, 13));
        },
    ),
    ("a new connection is rejected", |harness| {
        harness.decide("a/web", Decision::Reject);
        let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
        harness
            .send(Side::A, &syn)
            .expect_tcp_reset(DropReason::ConnectionNotApproved);
    }),
    ("flows of the other consumer continue", |harness| {
        let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS))
            .syn(1)
            .sent_to(Side::B);
        harness.send(Side::B, &syn).expect_forwarded(Side::Provider);
        harness.decide("a/web", Decision::Reject);
        harness.send(Side::B, &syn).expect_forwarded(Side::Provider);
    }),
    (
        "after a new approval old flows stay dead and new ones open",
        |harness| {
            let flow = harness.connect(40_000);
            harness.decide("a/web", Decision::Reject);
            harness.decide("a/web", Decision::Approve);
            harness
                .send(Side::A, &flow.client_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            harness
                .send(Side::A, &tcp(flow.client, flow.endpoint).syn(9))
                .expect_forwarded(Side::Provider);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    ("removal of a connection ends its flows", |harness| {
        let flow = harness.connect(40_000);
        harness.decide("a/web", Decision::Remove);
        harness
            .send(Side::A, &flow.client_ack())
            .expect_tcp_reset(DropReason::ConnectionRevoked);
        let syn = tcp((CLIENT, 41_000), (ENDPOINT, HTTPS)).syn(1);
        harness
            .send(Side::A, &syn)
            .expect_tcp_reset(DropReason::ConnectionNotApproved);
    }),
    (
        "deletion of an endpoint ends its flows, and its address is no local address",
        |harness| {
            let flow = harness.connect(40_000);
            harness.delete_endpoint("a/web");
            harness
                .send(Side::A, &flow.client_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            let syn = tcp((CLIENT, 41_000), (ENDPOINT, HTTPS)).syn(1);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::NoSuchEndpoint);
        },
    ),
];

#[test]
fn revocation_takes_effect_immediately() {
    run_cases(CASES);
}
