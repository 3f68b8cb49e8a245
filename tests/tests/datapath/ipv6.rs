//! IPv6: everything that IPv4 has, and what only IPv6 has.

use std::net::Ipv6Addr;

use gateway::model::Decision;
use gateway_common::{DropReason, flow::Table};
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS_V6, CLIENT_MAC, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT_V6,
        HTTPS, NAT_V6, PENDING_V6, ROUTER_MAC, Side, SocketV6, icmp_v6, neighbour_solicitation,
        tcp_v6, udp_v6,
    },
    packet::{
        Content, Ipv6, Packet, Transport,
        flag::{ACK, FIN, RST},
    },
};

use crate::{Case, run_cases};

const CLIENT: SocketV6 = (CLIENT_V6, 40_000);
const WEB: SocketV6 = (ENDPOINT_V6, HTTPS);
const NAME_SERVER: SocketV6 = (ENDPOINT_V6, DNS);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An open connection: as what the client appears, and who answers.
#[track_caller]
fn connect(harness: &mut DifferentialHarness) -> (SocketV6, SocketV6) {
    let syn = harness.send(Side::A, &tcp_v6(CLIENT, WEB).syn(1_000));
    let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets_v6();
    let answer = tcp_v6(backend, nat)
        .with_source_mac(BACKEND_MAC)
        .syn_ack(5_000, 1_001);
    harness
        .send(Side::Provider, &answer)
        .expect_forwarded(Side::A);
    harness
        .send(Side::A, &tcp_v6(CLIENT, WEB).ack(1_001, 5_001))
        .expect_forwarded(Side::Provider);
    (nat, backend)
}

/// The advertisement's destination, flags and target.
#[track_caller]
fn advertisement(answer: &Packet) -> (Ipv6Addr, u8, Ipv6Addr) {
    match &answer.content {
        Content::Ipv6(Ipv6 {
            hop_limit: 255,
            source,
            destination,
            transport: Transport::Icmp(136, 0, rest),
            ..
        }) => {
            let octets: [u8; 16] = std::array::from_fn(|index| rest[4 + index]);
            let target = Ipv6Addr::from(octets);
            assert_eq!(*source, target);
            assert_eq!(rest[20..22], [2, 1]);
            assert_eq!(rest[22..28], answer.from);
            (*destination, rest[0], target)
        }
        _ => panic!("no advertisement:\n{answer}"),
    }
}

fn extension_header(number: u8, octets: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; octets];
    bytes[1] = u8::try_from(octets / 8 - 1).expect("a length");
    (number, bytes)
}

const CASES: &[Case] = &[
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
    ("one to our own station is as well", |harness| {
        let question = neighbour_solicitation(ENDPOINT_V6, CLIENT_V6).sent_to(Side::A);
        let question = question.edit_ipv6(|ip| ip.destination = ENDPOINT_V6);
        let answer = harness.send(Side::A, &question).expect_reply();
        assert_eq!(advertisement(&answer), (CLIENT_V6, 0x60, ENDPOINT_V6));
    }),
    (
        "duplicate address detection is told that the address is taken (RFC 4862)",
        |harness| {
            let probe = neighbour_solicitation(ENDPOINT_V6, Ipv6Addr::UNSPECIFIED);
            let answer = harness.send(Side::A, &probe).expect_reply();
            assert_eq!(answer.to, [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!(advertisement(&answer), (ALL_NODES, 0x20, ENDPOINT_V6));
        },
    ),
    (
        "one for a source NAT address is answered in the provider's network only",
        |harness| {
            let question = neighbour_solicitation(NAT_V6, BACKENDS_V6[0]);
            harness.send(Side::Provider, &question).expect_reply();
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "one for another address is dropped, or passed where the network is not isolated",
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
        "one that a router has forwarded is malformed (RFC 4861)",
        |harness| {
            let question =
                neighbour_solicitation(ENDPOINT_V6, CLIENT_V6).edit_ipv6(|ip| ip.hop_limit = 254);
            harness
                .send(Side::A, &question)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "one from a group, or from the address itself, is none",
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
        "advertisements reach the host where it looks for backends",
        |harness| {
            let answer = icmp_v6(
                BACKENDS_V6[0],
                "fe80::1".parse().expect("an address"),
                136,
                &[0; 20],
            );
            let answer = answer.with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &answer).expect_passed(&answer);
        },
    ),
    ("ping is answered, with a fresh hop limit", |harness| {
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
    ("other ICMPv6 messages are counted", |harness| {
        for kind in [129, 133, 134, 137] {
            harness
                .send(Side::A, &icmp_v6(CLIENT_V6, ENDPOINT_V6, kind, &[0; 20]))
                .expect_dropped(DropReason::IcmpUnsupported);
        }
    }),
    (
        "a SYN goes to a backend, from source NAT, one hop older",
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
                harness.flows(Table::HalfOpen),
                harness.flows(Table::Established)
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
        harness
            .send(Side::A, &tcp_v6(CLIENT, WEB).syn(9))
            .expect_forwarded(Side::Provider);
        assert_eq!(
            (
                harness.flows(Table::HalfOpen),
                harness.flows(Table::Established)
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
        "a packet larger than the MTU is answered with what fits",
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
        "a packet whose hop limit ends here is answered",
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
        "a routed client is answered through the router that it came by",
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
        "two consumers with the same addresses do not meet",
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
    ("datagrams go there and back", |harness| {
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
                harness.flows(Table::HalfOpen),
                harness.flows(Table::Established)
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
    (
        "extension headers are walked, and carried along",
        |harness| {
            for extensions in [
                vec![extension_header(60, 8)],
                vec![extension_header(0, 8), extension_header(43, 16)],
                vec![
                    extension_header(0, 8),
                    extension_header(60, 8),
                    extension_header(43, 24),
                    extension_header(60, 8),
                ],
            ] {
                harness.reset();
                let bytes: usize = extensions.iter().map(|(_, bytes)| bytes.len()).sum();
                let syn = tcp_v6(CLIENT, WEB)
                    .syn(1)
                    .edit_ipv6(|ip| ip.extensions = extensions);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                // The reader walks none, so what is behind them has to be looked at here.
                match &out.ipv6().transport {
                    Transport::Other(_, body) => {
                        let mut plain = out.ipv6().clone();
                        plain.transport = Transport::Other(6, body[bytes..].to_vec());
                        Ipv6::parse(&plain.bytes(false))
                            .expect("a TCP segment with the right checksum");
                    }
                    other => panic!("{other:?}"),
                }
            }
        },
    ),
    (
        "a segment behind extension headers is reset without them",
        |harness| {
            let stray = tcp_v6(CLIENT, WEB)
                .ack(77, 4_711)
                .with_payload(&[0xee; 200]);
            let stray = stray.edit_ipv6(|ip| ip.extensions = vec![extension_header(43, 16)]);
            let out = harness.send(Side::A, &stray);
            assert_eq!(out.expect_tcp_reset(DropReason::NoFlow).sequence, 4_711);
            assert_eq!(out.frame.len(), 74);
        },
    ),
    ("a fifth extension header is counted", |harness| {
        let extensions = vec![extension_header(60, 8); 5];
        let syn = tcp_v6(CLIENT, WEB)
            .syn(1)
            .edit_ipv6(|ip| ip.extensions = extensions);
        harness
            .send(Side::A, &syn)
            .expect_dropped(DropReason::ExtensionHeaders);
    }),
    (
        "an extension header that is longer than the packet is malformed",
        |harness| {
            let mut long = extension_header(60, 8);
            long.1[1] = 200;
            let syn = tcp_v6(CLIENT, WEB)
                .syn(1)
                .edit_ipv6(|ip| ip.extensions = vec![long]);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "an atomic fragment goes its way, behind other extension headers too (RFC 6946)",
        |harness| {
            for extensions in [
                vec![extension_header(44, 8)],
                vec![extension_header(60, 8), extension_header(44, 8)],
            ] {
                let syn = tcp_v6(CLIENT, WEB)
                    .syn(1)
                    .edit_ipv6(|ip| ip.extensions = extensions);
                harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            }
        },
    ),
    (
        "no next header, and protocols that are not carried, are counted",
        |harness| {
            for protocol in [1, 41, 47, 50, 51, 59, 132] {
                let transport = Transport::Other(protocol, vec![0; 24]);
                let packet = tcp_v6(CLIENT, WEB).edit_ipv6(|ip| ip.transport = transport);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::ProtocolUnsupported);
            }
        },
    ),
    (
        "lengths that contradict the frame are told apart",
        |harness| {
            let frame = tcp_v6(CLIENT, WEB).syn(1).bytes(false);
            for end in [15, 53, 54, 60, 73] {
                harness
                    .send_bytes(Side::A, &frame[..end])
                    .expect_dropped(DropReason::Truncated);
            }
            let mut empty = frame.clone();
            (empty[18], empty[19]) = (0, 0);
            harness
                .send_bytes(Side::A, &empty)
                .expect_dropped(DropReason::Malformed);
            let mut huge = frame.clone();
            (huge[18], huge[19]) = (0xff, 0xff);
            harness
                .send_bytes(Side::A, &huge)
                .expect_dropped(DropReason::Malformed);
            let mut version = frame;
            version[14] = 0x40;
            harness
                .send_bytes(Side::A, &version)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    ("a frame to another station is dropped", |harness| {
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
    ("sources that no host can have open nothing", |harness| {
        for source in ["::", "::1", "::10.0.0.5", "ff02::1", "fd00::100"] {
            let source = (source.parse().expect("an address"), 40_000);
            harness
                .send(Side::A, &tcp_v6(source, WEB).syn(1))
                .expect_dropped(DropReason::MartianSource);
        }
    }),
    (
        "a connection that waits for approval carries nothing",
        |harness| {
            let syn = tcp_v6(CLIENT, (PENDING_V6, HTTPS)).syn(1_000);
            let reset = harness
                .send(Side::A, &syn)
                .expect_tcp_reset(DropReason::ConnectionNotApproved);
            assert_eq!((reset.flags, reset.acknowledgement), (RST | ACK, 1_001));
            assert_eq!(harness.flows(Table::HalfOpen), 0);
        },
    ),
    ("a port that is not offered is refused", |harness| {
        harness
            .send(Side::A, &tcp_v6(CLIENT, (ENDPOINT_V6, 80)).syn(1))
            .expect_tcp_reset(DropReason::PortNotOffered);
    }),
    (
        "a consumer can't reach a backend, a source NAT address or the host",
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
    ("a withdrawn approval cuts both sides", |harness| {
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
    ("an evicted flow opens anew", |harness| {
        let syn = tcp_v6(CLIENT, WEB).syn(1);
        for side in [Side::A, Side::Provider] {
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            harness.evict_half_open(side);
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            assert_eq!(harness.flows(Table::HalfOpen), 1);
        }
    }),
];

#[test]
fn ipv6_matches_ipv4_behaviour() {
    run_cases(CASES);
}
