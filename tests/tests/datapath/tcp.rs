//! TCP over IPv4: opening, data, closing and eviction.

use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::differential::{
        BACKEND_MAC, CLIENT, CLIENT_MAC, ENDPOINT, HTTPS, ROUTER_MAC, Side, tcp,
    },
    packet::flag::{ACK, FIN, PSH, RST, SYN},
};

use crate::{Case, run_cases};

const CASES: &[Case] = &[
    (
        "a SYN goes to a backend from an SNAT address, with a decremented TTL",
        |harness| {
            let out = harness.send(Side::A, &tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1));
            let out = out
                .expect_forwarded(Side::Provider)
                .expect_snat_source()
                .expect_backend(8443);
            assert_eq!(out.ipv4().ttl, 63);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    ("a retransmitted SYN is forwarded alike", |harness| {
        let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
        let first = harness
            .send(Side::A, &syn)
            .expect_forwarded(Side::Provider)
            .sockets();
        let second = harness
            .send(Side::A, &syn)
            .expect_forwarded(Side::Provider)
            .sockets();
        assert_eq!(first, second);
        assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
    }),
    (
        "the reply comes from the endpoint, to the client's MAC address",
        |harness| {
            let syn = harness.send(Side::A, &tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1));
            let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
            let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC).syn_ack(7, 2);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A)
                .expect_sockets((ENDPOINT, HTTPS), (CLIENT, 40_000))
                .expect_destination_mac(CLIENT_MAC);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    (
        "the third segment of the handshake establishes the flow",
        |harness| {
            harness.connect(40_000);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "an acknowledgement of another number does not establish the flow",
        |harness| {
            let client = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS));
            let syn = harness.send(Side::A, &client.clone().syn(1));
            let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
            harness.send(
                Side::Provider,
                &tcp(backend, nat).with_source_mac(BACKEND_MAC).syn_ack(7, 2),
            );
            harness
                .send(Side::A, &client.ack(2, 9))
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
    (
        "an acknowledgement without a SYN-ACK does not establish the flow",
        |harness| {
            let client = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS));
            harness.send(Side::A, &client.clone().syn(1));
            harness
                .send(Side::A, &client.ack(2, 1))
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
    ("data is forwarded in both directions", |harness| {
        let flow = harness.connect(40_000);
        let there = harness.send(
            Side::A,
            &flow
                .client_ack()
                .add_flags(PSH)
                .with_payload(b"GET / HTTP/1.0\r\n\r\n"),
        );
        there
            .expect_forwarded(Side::Provider)
            .expect_sockets(flow.nat, flow.backend)
            .expect_destination_mac(BACKEND_MAC);
        let back = harness.send(
            Side::Provider,
            &flow
                .backend_ack()
                .add_flags(PSH)
                .with_payload(b"HTTP/1.0 200 OK\r\n"),
        );
        back.expect_forwarded(Side::A)
            .expect_sockets(flow.endpoint, flow.client)
            .expect_destination_mac(CLIENT_MAC);
    }),
    (
        "the largest segment that fits the MTU is forwarded",
        |harness| {
            let flow = harness.connect(40_000);
            let full = flow.client_ack().with_payload(&[7; 1_460]);
            harness
                .send(Side::A, &full)
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "a segment larger than the MTU is answered with the MTU (RFC 1191)",
        |harness| {
            let flow = harness.connect(40_000);
            let over = flow.client_ack().with_payload(&[7; 1_461]);
            let error = harness
                .send(Side::A, &over)
                .expect_icmp_error(DropReason::PacketTooBig);
            assert_eq!((error.kind, error.rest), ((3, 4), 1_500));
            assert_eq!(error.expect_embedded(&over).embedded.len(), 548);
        },
    ),
    ("a smaller MTU of the network is used", |harness| {
        let flow = harness.connect(40_000);
        harness.change_network("shop/net", |network| network["mtu"] = 1_400.into());
        let packet = flow.client_ack().with_payload(&[7; 1_361]);
        let error = harness
            .send(Side::A, &packet)
            .expect_icmp_error(DropReason::PacketTooBig);
        assert_eq!(error.rest, 1_400);
        harness
            .send(Side::A, &flow.client_ack().with_payload(&[7; 1_360]))
            .expect_forwarded(Side::Provider);
    }),
    (
        "a packet whose TTL expires is answered with time exceeded",
        |harness| {
            let flow = harness.connect(40_000);
            for ttl in [0, 1] {
                let packet = flow.client_ack().edit_ipv4(|ip| ip.ttl = ttl);
                let error = harness
                    .send(Side::A, &packet)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!((error.kind, error.source), ((11, 0), ENDPOINT.into()));
                error.expect_embedded(&packet);
            }
            let packet = flow.client_ack().edit_ipv4(|ip| ip.ttl = 2);
            assert_eq!(
                harness
                    .send(Side::A, &packet)
                    .expect_forwarded(Side::Provider)
                    .ipv4()
                    .ttl,
                1
            );
        },
    ),
    ("DSCP, ECN and identification are kept", |harness| {
        let flow = harness.connect(40_000);
        let packet = flow
            .client_ack()
            .edit_ipv4(|ip| (ip.tos, ip.id) = (0xb9, 0xbeef));
        let out = harness
            .send(Side::A, &packet)
            .expect_forwarded(Side::Provider);
        assert_eq!((out.ipv4().tos, out.ipv4().id), (0xb9, 0xbeef));
    }),
    (
        "a checksum left to hardware is completed, in every phase",
        |harness| {
            let client = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS));
            let syn = harness.send_offloaded(Side::A, &client.clone().syn(1_000));
            let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
            let answer = tcp(backend, nat)
                .with_source_mac(BACKEND_MAC)
                .syn_ack(5_000, 1_001);
            harness
                .send_offloaded(Side::Provider, &answer)
                .expect_forwarded(Side::A);
            let ack = client.ack(1_001, 5_001);
            harness
                .send_offloaded(Side::A, &ack)
                .expect_forwarded(Side::Provider);
            for length in [1, 2, 3, 511, 512, 513, 1_024, 1_459, 1_460] {
                let packet = ack.clone().with_payload(&vec![0xa5; length]);
                harness
                    .send_offloaded(Side::A, &packet)
                    .expect_forwarded(Side::Provider);
            }
        },
    ),
    (
        "replies to a routed client go through its router",
        |harness| {
            let client = ("192.168.7.7".parse().expect("an address"), 40_000);
            let syn = tcp(client, (ENDPOINT, HTTPS))
                .syn(1)
                .with_source_mac(ROUTER_MAC);
            let (nat, backend) = harness
                .send(Side::A, &syn)
                .expect_forwarded(Side::Provider)
                .expect_snat_source()
                .sockets();
            let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC).syn_ack(7, 2);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A)
                .expect_sockets((ENDPOINT, HTTPS), client)
                .expect_destination_mac(ROUTER_MAC);
        },
    ),
    (
        "flows of two consumers with the same addresses and ports are separate",
        |harness| {
            let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
            let (nat_a, backend_a) = harness
                .send(Side::A, &syn)
                .expect_forwarded(Side::Provider)
                .sockets();
            let syn = syn.sent_to(Side::B);
            let (nat_b, backend_b) = harness
                .send(Side::B, &syn)
                .expect_forwarded(Side::Provider)
                .sockets();
            assert_ne!((nat_a, backend_a), (nat_b, backend_b));
            for (nat, backend, side) in [(nat_a, backend_a, Side::A), (nat_b, backend_b, Side::B)] {
                let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC).syn_ack(7, 2);
                let back = harness.send(Side::Provider, &answer).expect_forwarded(side);
                assert_eq!(back.sockets(), ((ENDPOINT, HTTPS), (CLIENT, 40_000)));
            }
        },
    ),
    (
        "closing from both sides, then a new connection from the same port",
        |harness| {
            let flow = harness.connect(40_000);
            harness
                .send(Side::A, &flow.client_ack().add_flags(FIN))
                .expect_forwarded(Side::Provider);
            harness
                .send(
                    Side::Provider,
                    &tcp(flow.backend, flow.nat)
                        .with_source_mac(BACKEND_MAC)
                        .with_flags(FIN | ACK, 5_001, 1_002),
                )
                .expect_forwarded(Side::A);
            // The consumer's FIN is acknowledged, the backend's is not.
            assert_eq!(harness.flows(PlaceState::Established), 1);
            let last = tcp(flow.client, flow.endpoint).ack(1_002, 5_002);
            harness
                .send(Side::A, &last)
                .expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(PlaceState::Closed), 1);
            let again = tcp(flow.client, flow.endpoint).syn(90_000);
            harness
                .send(Side::A, &again)
                .expect_forwarded(Side::Provider)
                .expect_sockets(flow.nat, flow.backend);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    (
        "a SYN on an established flow is forwarded to the peer",
        |harness| {
            let flow = harness.connect(40_000);
            let stray = tcp(flow.client, flow.endpoint).syn(90_000);
            harness
                .send(Side::A, &stray)
                .expect_forwarded(Side::Provider)
                .expect_sockets(flow.nat, flow.backend);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "after a reset by the client the same port opens a new flow",
        |harness| {
            let flow = harness.connect(40_000);
            harness
                .send(Side::A, &flow.client_ack().add_flags(RST))
                .expect_forwarded(Side::Provider);
            let again = tcp(flow.client, flow.endpoint).syn(90_000);
            harness
                .send(Side::A, &again)
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
    (
        "after a reset by the backend the same port opens a new flow",
        |harness| {
            let flow = harness.connect(40_000);
            harness
                .send(Side::Provider, &flow.backend_ack().add_flags(RST))
                .expect_forwarded(Side::A);
            let again = tcp(flow.client, flow.endpoint).syn(90_000);
            harness
                .send(Side::A, &again)
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
    ("a backend's reset of a SYN goes to the client", |harness| {
        let syn = harness.send(Side::A, &tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1));
        let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
        let refusal = tcp(backend, nat)
            .with_source_mac(BACKEND_MAC)
            .with_flags(RST | ACK, 0, 2);
        harness
            .send(Side::Provider, &refusal)
            .expect_forwarded(Side::A);
    }),
    (
        "a flow with an evicted entry is opened again by the next SYN",
        |harness| {
            let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
            for side in [Side::A, Side::Provider] {
                harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                harness.evict_half_open(side);
                harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
            }
        },
    ),
    (
        "a segment of an evicted flow is answered with a reset",
        |harness| {
            let client = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS));
            harness
                .send(Side::A, &client.clone().syn(1))
                .expect_forwarded(Side::Provider);
            harness.evict_half_open(Side::A);
            harness.evict_half_open(Side::Provider);
            harness
                .send(Side::A, &client.ack(2, 8))
                .expect_tcp_reset(DropReason::NoFlow);
        },
    ),
    (
        "an entry that another flow has replaced is not used",
        |harness| {
            let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
            let first = harness
                .send(Side::A, &syn)
                .expect_forwarded(Side::Provider)
                .sockets();
            // The entry for the provider's packets is evicted, the consumer's stays.
            harness.evict_half_open(Side::Provider);
            let again = harness
                .send(Side::A, &syn.with_flags(SYN, 2, 0))
                .expect_forwarded(Side::Provider)
                .sockets();
            assert_eq!(first, again, "the choice is a function of the tuple");
            assert_eq!(harness.flows(PlaceState::HalfOpen), 1);
        },
    ),
];

#[test]
fn tcp_flows_are_forwarded() {
    run_cases(CASES);
}
