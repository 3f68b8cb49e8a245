//! UDP over IPv4.

use std::net::Ipv4Addr;

use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::differential::{
        ALL_PORTS_ENDPOINT, BACKEND_MAC, CLIENT, CLIENT_MAC, DNS, ENDPOINT, Side, udp,
    },
    packet::Transport,
};

use crate::{Case, run_cases};

const CLIENT_SOCKET: (Ipv4Addr, u16) = (CLIENT, 40_000);
const NAME_SERVER: (Ipv4Addr, u16) = (ENDPOINT, DNS);

const CASES: &[Case] = &[
    (
        "a datagram goes to a backend from an SNAT address",
        |harness| {
            let out = harness.send(Side::A, &udp(CLIENT_SOCKET, NAME_SERVER, b"question"));
            out.expect_forwarded(Side::Provider)
                .expect_snat_source()
                .expect_backend(DNS)
                .expect_destination_mac(BACKEND_MAC);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (1, 0)
            );
        },
    ),
    ("the reply goes to the client's MAC address", |harness| {
        let out = harness.send(Side::A, &udp(CLIENT_SOCKET, NAME_SERVER, b"question"));
        let (nat, backend) = out.expect_forwarded(Side::Provider).sockets();
        harness
            .send(
                Side::Provider,
                &udp(backend, nat, b"answer").with_source_mac(BACKEND_MAC),
            )
            .expect_forwarded(Side::A)
            .expect_sockets(NAME_SERVER, CLIENT_SOCKET)
            .expect_destination_mac(CLIENT_MAC);
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (1, 0)
        );
    }),
    ("an established UDP flow is never evicted", |harness| {
        let question = udp(CLIENT_SOCKET, NAME_SERVER, b"question");
        let (nat, backend) = harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider)
            .sockets();
        harness.send(
            Side::Provider,
            &udp(backend, nat, b"answer").with_source_mac(BACKEND_MAC),
        );
        harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider)
            .expect_sockets(nat, backend);
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (0, 1)
        );
        harness
            .send(
                Side::Provider,
                &udp(backend, nat, b"answer").with_source_mac(BACKEND_MAC),
            )
            .expect_forwarded(Side::A);
    }),
    ("UDP flows without replies stay evictable", |harness| {
        let question = udp(CLIENT_SOCKET, NAME_SERVER, b"question");
        for _ in 0..5 {
            harness
                .send(Side::A, &question)
                .expect_forwarded(Side::Provider);
        }
        assert_eq!(
            (
                harness.flows(PlaceState::HalfOpen),
                harness.flows(PlaceState::Established)
            ),
            (1, 0)
        );
    }),
    ("a datagram without checksum stays without", |harness| {
        let question = udp(CLIENT_SOCKET, NAME_SERVER, b"question").without_udp_checksum();
        let out = harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider);
        assert!(matches!(&out.ipv4().transport, Transport::Udp(udp) if !udp.checksummed));
    }),
    ("a checksum left to hardware is completed", |harness| {
        for length in [0, 1, 7, 8, 511, 1_472] {
            let question = udp(CLIENT_SOCKET, NAME_SERVER, &vec![0x5a; length]);
            harness
                .send_offloaded(Side::A, &question)
                .expect_forwarded(Side::Provider);
        }
    }),
    (
        "a checksum that comes out as zero is sent as all ones (RFC 768)",
        |harness| {
            // Each of 65,536 payloads has another checksum, so one of them is zero.
            let question = |word: u16| udp(CLIENT_SOCKET, NAME_SERVER, &word.to_be_bytes());
            let base = harness
                .send(Side::A, &question(0))
                .expect_forwarded(Side::Provider);
            let bytes = base.packet.bytes(false);
            let checksum = u16::from_be_bytes([bytes[40], bytes[41]]);
            let out = harness.send(Side::A, &question(checksum));
            assert_eq!(out.frame[40..42], [0xff, 0xff]);
            out.expect_forwarded(Side::Provider);
        },
    ),
    ("an empty datagram is forwarded", |harness| {
        harness
            .send(Side::A, &udp(CLIENT_SOCKET, NAME_SERVER, b""))
            .expect_forwarded(Side::Provider);
    }),
    ("bytes behind the UDP length are forwarded", |harness| {
        let mut packet = udp(CLIENT_SOCKET, NAME_SERVER, b"question").bytes(false);
        packet.extend([0; 10]);
        harness
            .send_bytes(Side::A, &packet)
            .expect_forwarded(Side::Provider);
    }),
    (
        "a port that is not offered is unreachable (RFC 1122, section 4.1.3.1)",
        |harness| {
            let packet = udp(CLIENT_SOCKET, (ENDPOINT, 54), b"question");
            let error = harness
                .send(Side::A, &packet)
                .expect_icmp_error(DropReason::PortNotOffered);
            assert_eq!(error.kind, (3, 3));
            assert_eq!(
                (error.source, error.destination),
                (ENDPOINT.into(), CLIENT.into())
            );
            error.expect_embedded(&packet);
        },
    ),
    ("a service on every port keeps the port", |harness| {
        for port in [1, 53, 4_500, 65_535] {
            let out = harness.send(
                Side::A,
                &udp(CLIENT_SOCKET, (ALL_PORTS_ENDPOINT, port), b"x"),
            );
            let (_, (_, found)) = out.expect_forwarded(Side::Provider).sockets();
            assert_eq!(found, port);
        }
    }),
    ("a reply from another port is dropped", |harness| {
        let out = harness.send(Side::A, &udp(CLIENT_SOCKET, NAME_SERVER, b"question"));
        let (nat, (backend, port)) = out.expect_forwarded(Side::Provider).sockets();
        let stray = udp((backend, port + 1), nat, b"answer").with_source_mac(BACKEND_MAC);
        harness
            .send(Side::Provider, &stray)
            .expect_icmp_error(DropReason::NoFlow)
            .expect_embedded(&stray);
    }),
    ("a reply from another backend is dropped", |harness| {
        let out = harness.send(Side::A, &udp(CLIENT_SOCKET, NAME_SERVER, b"question"));
        let (nat, (_, port)) = out.expect_forwarded(Side::Provider).sockets();
        let stranger = (Ipv4Addr::new(10, 1, 0, 99), port);
        let stray = udp(stranger, nat, b"answer").with_source_mac(BACKEND_MAC);
        harness
            .send(Side::Provider, &stray)
            .expect_icmp_error(DropReason::NoFlow)
            .expect_embedded(&stray);
    }),
];

#[test]
fn udp_flows_are_forwarded() {
    run_cases(CASES);
}
