//! IPv6 extension headers: padding is forwarded, headers that redirect or alter processing are dropped.

use std::net::Ipv6Addr;

use gateway_common::DropReason;
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS_V6, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT_V6, HTTPS, NAT_V6,
        NAT64_ENDPOINT, Side, SocketV6, icmp_v6, neighbour_solicitation, tcp_v6, udp_v6,
    },
    packet::{Packet, Transport, builders::icmp_error},
};

use crate::{Case, run_cases};

/// Number of a header, and its bytes without the first.
type Header = (u8, Vec<u8>);

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

const CLIENT: SocketV6 = (CLIENT_V6, 40_000);
const WEB: SocketV6 = (ENDPOINT_V6, HTTPS);
const UNKNOWN_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x200);

/// Returns an options header. The options' length is a multiple of eight, less two.
fn options(number: u8, options: &[u8]) -> Header {
    let units = u8::try_from((options.len() + 2) / 8 - 1).expect("a length");
    (number, [&[0, units], options].concat())
}

/// Returns an options header with padding only.
fn padding(number: u8) -> Header {
    options(number, &[1, 4, 0, 0, 0, 0])
}

/// Returns a routing header with one address, after four bytes that depend on the type.
fn routing(kind: u8, segments_left: u8) -> Header {
    let mut bytes = vec![0, 2, kind, segments_left, 0, 0, 0, 0];
    bytes.extend(UNKNOWN_ADDRESS.octets());
    (ROUTING, bytes)
}

fn with_extension_headers(packet: Packet, headers: &[Header]) -> Packet {
    packet.edit_ipv6(|ip| ip.extensions = headers.to_vec())
}

fn syn(endpoint: Ipv6Addr) -> Packet {
    tcp_v6(CLIENT, (endpoint, HTTPS)).syn(1)
}

/// Returns packets of every kind that an endpoint accepts, or that belong to an established flow.
fn sample_packets(harness: &mut DifferentialHarness) -> Vec<Packet> {
    let mut packets = Vec::new();
    for endpoint in [ENDPOINT_V6, NAT64_ENDPOINT] {
        let segment = tcp_v6((CLIENT_V6, 41_000), (endpoint, HTTPS));
        harness
            .send(Side::A, &segment.clone().syn(1_000))
            .expect_forwarded(Side::Provider);
        packets.push(segment.ack(1_001, 5_001).with_payload(b"data"));
        packets.push(syn(endpoint));
        packets.push(udp_v6(CLIENT, (endpoint, DNS), b"question"));
        packets.push(icmp_v6(CLIENT_V6, endpoint, 128, b"\x12\x34\0\x01hello"));
    }
    packets.push(neighbour_solicitation(ENDPOINT_V6, CLIENT_V6).sent_to(Side::A));
    packets
}

#[track_caller]
fn expect_all_dropped(harness: &mut DifferentialHarness, headers: &[Header], reason: DropReason) {
    for packet in sample_packets(harness) {
        let neighbour = matches!(&packet.content, tests::packet::Content::Ipv6(ip)
            if ip.destination.is_multicast());
        let packet = with_extension_headers(packet, headers);
        // A multicast address is no local address, and the network is isolated: the drop reason is the same.
        let packet = if neighbour {
            packet.edit_ipv6(|ip| ip.destination = ENDPOINT_V6)
        } else {
            packet
        };
        harness.send(Side::A, &packet).expect_dropped(reason);
    }
}

const CASES: &[Case] = &[
    (
        "a routing header with segments left is dropped, whatever its type",
        |harness| {
            for kind in [0, 1, 2, 3, 4, 5, 6, 253, 254, 255] {
                for left in [1, 2, 255] {
                    let header = routing(kind, left);
                    harness
                        .send(
                            Side::A,
                            &with_extension_headers(syn(ENDPOINT_V6), &[header]),
                        )
                        .expect_dropped(DropReason::RoutingHeader);
                }
            }
            expect_all_dropped(harness, &[routing(4, 1)], DropReason::RoutingHeader);
        },
    ),
    (
        "a routing header with segments left is found behind other headers",
        |harness| {
            for headers in [
                vec![padding(HOP_BY_HOP), routing(4, 1)],
                vec![padding(DESTINATION), routing(0, 1)],
                vec![routing(4, 0), routing(4, 1)],
                vec![routing(4, 1), padding(DESTINATION)],
                vec![routing(3, 1), (FRAGMENT, vec![0; 8])],
                vec![
                    padding(HOP_BY_HOP),
                    padding(DESTINATION),
                    routing(4, 0),
                    routing(2, 1),
                ],
            ] {
                expect_all_dropped(harness, &headers, DropReason::RoutingHeader);
            }
        },
    ),
    (
        "a routing header without segments left is forwarded",
        |harness| {
            for endpoint in [ENDPOINT_V6, NAT64_ENDPOINT] {
                for kind in [0, 2, 4, 253] {
                    let packet = with_extension_headers(syn(endpoint), &[routing(kind, 0)]);
                    harness
                        .send(Side::A, &packet)
                        .expect_forwarded(Side::Provider);
                }
            }
        },
    ),
    ("replies with such headers are dropped", |harness| {
        let sent = harness.send(Side::A, &syn(ENDPOINT_V6));
        let (nat, backend) = sent.expect_forwarded(Side::Provider).sockets_v6();
        let answer = tcp_v6(backend, nat)
            .with_source_mac(BACKEND_MAC)
            .syn_ack(5_000, 2);
        for (header, reason) in [
            (routing(4, 1), DropReason::RoutingHeader),
            (
                options(DESTINATION, &[0xc9, 4, 0, 0, 0, 0]),
                DropReason::Ipv6Options,
            ),
        ] {
            let answer = with_extension_headers(answer.clone(), &[header]);
            harness.send(Side::Provider, &answer).expect_dropped(reason);
        }
        harness
            .send(Side::Provider, &answer)
            .expect_forwarded(Side::A);
    }),
    (
        "packets for the host keep their extension headers",
        |harness| {
            let host = "fd00:1::1".parse().expect("an address");
            for header in [
                routing(4, 1),
                options(HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]),
                options(DESTINATION, &[0; 14]),
            ] {
                let packet = tcp_v6((BACKENDS_V6[0], 8_443), (host, 22)).syn(1);
                let packet = with_extension_headers(packet.with_source_mac(BACKEND_MAC), &[header]);
                harness.send(Side::Provider, &packet).expect_passed(&packet);
            }
        },
    ),
    ("padding options are forwarded", |harness| {
        for endpoint in [ENDPOINT_V6, NAT64_ENDPOINT] {
            for number in [HOP_BY_HOP, DESTINATION] {
                for pad in [
                    [0, 0, 0, 0, 0, 0],
                    [1, 4, 0, 0, 0, 0],
                    [1, 0, 1, 0, 1, 0],
                    [0, 1, 3, 0, 0, 0],
                    [1, 1, 0, 0, 1, 0],
                ] {
                    let packet = with_extension_headers(syn(endpoint), &[options(number, &pad)]);
                    harness
                        .send(Side::A, &packet)
                        .expect_forwarded(Side::Provider);
                }
            }
        }
    }),
    ("an option other than padding is dropped", |harness| {
        let mut home = vec![1, 0, 0xc9, 16];
        home.extend(UNKNOWN_ADDRESS.octets());
        home.extend([0, 0]);
        for option in [
            // Router alert, jumbo payload, tunnel encapsulation limit, RPL, quick start, CALIPSO, PDM, unknown.
            vec![5, 2, 0, 0, 1, 0],
            vec![0xc2, 4, 0, 1, 0, 0],
            vec![4, 1, 4, 1, 1, 0],
            vec![0x63, 4, 0, 0, 0, 0],
            vec![0x23, 4, 0, 0, 0, 0],
            vec![0x26, 4, 0, 0, 0, 0],
            vec![7, 4, 0, 0, 0, 0],
            vec![0x0f, 4, 0, 0, 0, 0],
            vec![0x1e, 0, 0, 0, 0, 0],
            vec![0xff, 4, 0, 0, 0, 0],
            // After padding, at the end, truncated.
            vec![1, 0, 0x1e, 0, 0, 0],
            vec![0, 0, 0, 0, 0, 0x1e],
            vec![0, 0, 0, 0, 0, 1],
            vec![1, 5, 0, 0, 0, 0],
            vec![1, 4, 0, 0, 0, 1],
            home,
        ] {
            for number in [HOP_BY_HOP, DESTINATION] {
                let packet = with_extension_headers(syn(ENDPOINT_V6), &[options(number, &option)]);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::Ipv6Options);
            }
        }
        for number in [HOP_BY_HOP, DESTINATION] {
            let alert = options(number, &[5, 2, 0, 0, 1, 0]);
            expect_all_dropped(harness, &[alert], DropReason::Ipv6Options);
        }
    }),
    (
        "padding longer than alignment needs is dropped",
        |harness| {
            for number in [HOP_BY_HOP, DESTINATION] {
                for length in [14, 22, 2_046] {
                    let packet = with_extension_headers(
                        syn(ENDPOINT_V6),
                        &[options(number, &vec![0; length])],
                    );
                    harness
                        .send(Side::A, &packet)
                        .expect_dropped(DropReason::Ipv6Options);
                }
            }
        },
    ),
    (
        "hop-by-hop options that are not first are malformed",
        |harness| {
            for first in [padding(DESTINATION), padding(HOP_BY_HOP), routing(4, 0)] {
                let packet =
                    with_extension_headers(syn(ENDPOINT_V6), &[first, padding(HOP_BY_HOP)]);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::Malformed);
            }
        },
    ),
    (
        "extension headers behind a fragment header are dropped",
        |harness| {
            for header in [
                routing(4, 1),
                routing(4, 0),
                padding(DESTINATION),
                padding(HOP_BY_HOP),
                (FRAGMENT, vec![0; 8]),
            ] {
                for position in [[0, 0], [0, 1], [5, 0xa9], [5, 0xa8]] {
                    let mut fragment = vec![0; 8];
                    fragment[2..4].copy_from_slice(&position);
                    let headers = [(FRAGMENT, fragment), header.clone()];
                    harness
                        .send(Side::A, &with_extension_headers(syn(ENDPOINT_V6), &headers))
                        .expect_dropped(DropReason::ExtensionHeaders);
                }
            }
        },
    ),
    (
        "an ICMP error about a packet with extension headers that are forwarded is relayed, any other is dropped",
        |harness| {
            let sent = harness.send(Side::A, &syn(ENDPOINT_V6));
            let left = sent.expect_forwarded(Side::Provider).packet;
            let (nat, backend) = sent.expect_forwarded(Side::Provider).sockets_v6();
            let refusal = |about: &Packet| {
                icmp_error(backend.0.into(), nat.0.into(), (1, 4), 0, about, 500)
                    .with_source_mac(BACKEND_MAC)
            };
            for header in [routing(4, 0), padding(DESTINATION), padding(HOP_BY_HOP)] {
                harness
                    .send(
                        Side::Provider,
                        &refusal(&with_extension_headers(left.clone(), &[header])),
                    )
                    .expect_forwarded(Side::A);
            }
            for header in [routing(4, 1), (DESTINATION, vec![0, 0, 4, 1, 4, 1, 1, 0])] {
                harness
                    .send(
                        Side::Provider,
                        &refusal(&with_extension_headers(
                            left.clone(),
                            std::slice::from_ref(&header),
                        )),
                    )
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
            let outer = with_extension_headers(refusal(&left), &[routing(4, 1)]);
            harness
                .send(Side::Provider, &outer)
                .expect_dropped(DropReason::RoutingHeader);
            harness
                .send(Side::Provider, &refusal(&left))
                .expect_forwarded(Side::A);
        },
    ),
    (
        "neighbour discovery with extension headers is dropped",
        |harness| {
            let question = neighbour_solicitation(ENDPOINT_V6, CLIENT_V6).sent_to(Side::A);
            let question = question.edit_ipv6(|ip| ip.destination = ENDPOINT_V6);
            for header in [
                padding(HOP_BY_HOP),
                padding(DESTINATION),
                routing(4, 0),
                (FRAGMENT, vec![0; 8]),
            ] {
                harness
                    .send(
                        Side::A,
                        &with_extension_headers(question.clone(), &[header]),
                    )
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
            harness.send(Side::A, &question).expect_reply();
            // An SNAT address is a local address as well.
            let question =
                neighbour_solicitation(NAT_V6, BACKENDS_V6[0]).with_source_mac(BACKEND_MAC);
            let question = question.edit_ipv6(|ip| ip.destination = NAT_V6);
            let question = with_extension_headers(question, &[routing(4, 1)]);
            harness
                .send(Side::Provider, &question)
                .expect_dropped(DropReason::RoutingHeader);
        },
    ),
    (
        "a last header that is cut off is malformed or truncated",
        |harness| {
            for number in [HOP_BY_HOP, ROUTING, DESTINATION] {
                let packet = tcp_v6(CLIENT, WEB);
                let short =
                    packet.edit_ipv6(|ip| ip.transport = Transport::Other(number, vec![0; 4]));
                let frame = short.bytes(false);
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::Truncated);
            }
        },
    ),
];

#[test]
fn extension_headers_do_not_redirect_packets() {
    run_cases(CASES);
}
