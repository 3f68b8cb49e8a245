//! Special-purpose addresses as sources and destinations of packets, of ARP and of neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::DropReason;
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS, BACKENDS_V6, CLIENT, CLIENT_MAC, CLIENT_V6, DifferentialHarness,
        ENDPOINT, ENDPOINT_V6, HTTPS, NAT, NAT46_ENDPOINT, NAT64_ENDPOINT, PENDING, Side,
        arp_request, icmp_v6, neighbour_solicitation, tcp, tcp_v6,
    },
    packet::{
        Content, Packet, Transport,
        builders::{icmp_error, ip_packet, tcp_segment, udp_datagram},
        read::ip_parts,
    },
};

use crate::{Case, run_cases};

/// The treatment of packets from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Packets open flows, and are answered.
    Host,
    /// ARP and NDP are answered, and packets open no flows.
    OnLink,
    /// Packets are dropped.
    Nobody,
}

/// Addresses of the registries (RFC 6890), with the treatment of packets from them.
const SOURCES: &[(&str, Source)] = &[
    ("0.0.0.0", Source::Nobody),
    ("0.1.2.3", Source::Nobody),
    ("127.0.0.1", Source::Nobody),
    ("127.255.255.254", Source::Nobody),
    ("169.254.7.7", Source::OnLink),
    ("224.0.0.1", Source::Nobody),
    ("239.255.255.250", Source::Nobody),
    ("240.0.0.1", Source::Nobody),
    ("255.255.255.255", Source::Nobody),
    ("10.0.0.100", Source::Nobody),
    ("10.0.0.5", Source::Host),
    ("10.0.0.255", Source::Host),
    ("100.64.0.1", Source::Host),
    ("172.16.0.1", Source::Host),
    ("192.0.0.9", Source::Host),
    ("192.0.2.1", Source::Host),
    ("192.168.0.1", Source::Host),
    ("198.18.0.1", Source::Host),
    ("203.0.113.1", Source::Host),
    ("::", Source::Nobody),
    ("::1", Source::Nobody),
    ("::10.0.0.5", Source::Nobody),
    ("fe80::7", Source::OnLink),
    ("febf::7", Source::OnLink),
    ("ff02::1", Source::Nobody),
    ("ff0e::1", Source::Nobody),
    ("fd00::100", Source::Nobody),
    ("fd00::5", Source::Host),
    ("2001:db8::5", Source::Host),
    ("2002:a00:5::1", Source::Host),
    ("64:ff9b::a00:5", Source::Host),
    ("100::1", Source::Host),
    ("fec0::1", Source::Host),
];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mapped(address: Ipv4Addr) -> Ipv6Addr {
    address.to_ipv6_mapped()
}

/// Returns the endpoint of the address's family.
fn endpoint(source: IpAddr) -> IpAddr {
    if source.is_ipv4() {
        ENDPOINT.into()
    } else {
        ENDPOINT_V6.into()
    }
}

fn echo(source: IpAddr, destination: IpAddr) -> Packet {
    let kind = if source.is_ipv4() { 8 } else { 128 };
    ip_packet(source, destination, Transport::Icmp(kind, 0, vec![0; 16]))
}

/// Returns a packet of every kind between two IPv6 addresses.
fn one_packet_per_kind(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<Packet> {
    let (from, to) = ((source, 40_000), (destination, HTTPS));
    let segment = tcp_v6(from, to);
    let datagram = udp_datagram(
        (IpAddr::V6(source), 40_000).into(),
        (IpAddr::V6(destination), 53).into(),
        &[7; 2_000],
    );
    let mut kinds = vec![
        segment.clone().syn(1),
        segment.clone().ack(1_001, 5_001).with_payload(b"data"),
        segment.with_flags(tests::packet::flag::RST, 1_001, 0),
        datagram.clone(),
        echo(source.into(), destination.into()),
        icmp_v6(source, destination, 129, &[0; 8]),
        icmp_v6(source, destination, 1, &[0; 100]),
    ];
    kinds.extend(datagram.split_into_fragments(1_000, 7));
    kinds
}

/// Establishes a connection, and returns its sockets in the provider's network.
fn open(harness: &mut DifferentialHarness, source: IpAddr, endpoint: IpAddr) -> Packet {
    let syn = tcp_segment((source, 40_000).into(), (endpoint, HTTPS).into()).syn(1);
    harness
        .send(Side::A, &syn)
        .expect_forwarded(Side::Provider)
        .packet
}

const CASES: &[Case] = &[
    (
        "every special address is accepted or rejected as a source",
        |harness| {
            for (text, expected) in SOURCES {
                let source = address(text);
                let endpoint = endpoint(source);
                let from = (source, 40_000).into();
                let syn = tcp_segment(from, (endpoint, HTTPS).into()).syn(1);
                let question = udp_datagram(from, (endpoint, 53).into(), b"question");
                for packet in [syn, question] {
                    let result = harness.send(Side::A, &packet);
                    if *expected == Source::Host {
                        result.expect_forwarded(Side::Provider);
                    } else {
                        result.expect_dropped(DropReason::MartianSource);
                    }
                }
                let result = harness.send(Side::A, &echo(source, endpoint));
                if *expected == Source::Nobody {
                    result.expect_dropped(DropReason::MartianSource);
                } else {
                    result.expect_reply();
                }
            }
        },
    ),
    (
        "a pending connection does not reject packets from special addresses",
        |harness| {
            for (text, expected) in SOURCES {
                let IpAddr::V4(source) = address(text) else {
                    continue;
                };
                let result = harness.send(Side::A, &tcp((source, 40_000), (PENDING, HTTPS)).syn(1));
                if *expected == Source::Host || source == ENDPOINT {
                    result.expect_tcp_reset(DropReason::ConnectionNotApproved);
                } else {
                    result.expect_dropped(DropReason::MartianSource);
                }
            }
        },
    ),
    (
        "ARP and NDP from every special address are answered or not",
        |harness| {
            for (text, expected) in SOURCES {
                let asker = address(text);
                let question = match asker {
                    IpAddr::V4(asker) => arp_request(ENDPOINT, (CLIENT_MAC, asker)),
                    IpAddr::V6(asker) => neighbour_solicitation(ENDPOINT_V6, asker),
                };
                let result = harness.send(Side::A, &question);
                if asker.is_unspecified() {
                    // An ARP probe is answered: the address is defended.
                    result.expect_reply();
                } else if asker == endpoint(asker) && asker.is_ipv4() {
                    result.expect_dropped(DropReason::AddressConflict);
                } else if *expected == Source::Nobody {
                    result.expect_dropped(DropReason::MartianSource);
                } else {
                    result.expect_reply();
                }
            }
        },
    ),
    (
        "an ICMP error from a martian source is dropped",
        |harness| {
            for family in [true, false] {
                let (client, endpoint) = if family {
                    (IpAddr::V4(CLIENT), IpAddr::V4(ENDPOINT))
                } else {
                    (CLIENT_V6.into(), ENDPOINT_V6.into())
                };
                let left = open(harness, client, endpoint);
                let nat = ip_parts(&left).0;
                let kind = if family { (11, 0) } else { (3, 0) };
                for (text, expected) in SOURCES {
                    let source = address(text);
                    if source.is_ipv4() != family {
                        continue;
                    }
                    let error =
                        icmp_error(source, nat, kind, 0, &left, 100).with_source_mac(BACKEND_MAC);
                    let result = harness.send(Side::Provider, &error);
                    // In the provider's network, the endpoint's address may be a host's.
                    if *expected == Source::Nobody && source != endpoint {
                        result.expect_dropped(DropReason::MartianSource);
                    } else {
                        result.expect_forwarded(Side::A);
                    }
                }
            }
        },
    ),
    ("no special address is a destination", |harness| {
        for (text, _) in SOURCES {
            let destination = address(text);
            let client = if destination.is_ipv4() {
                IpAddr::V4(CLIENT)
            } else {
                CLIENT_V6.into()
            };
            if destination == endpoint(destination) {
                continue;
            }
            let (from, to) = ((client, 40_000).into(), (destination, HTTPS).into());
            for packet in [
                tcp_segment(from, to).syn(1),
                tcp_segment(from, to).ack(1, 1),
                udp_datagram(from, to, b"question"),
                echo(client, destination),
            ] {
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::NoSuchEndpoint);
            }
        }
    }),
    ("IPv4-mapped addresses are dropped", |harness| {
        // NAT46 flows have mapped addresses in the IPv6 flow table.
        open(harness, CLIENT.into(), NAT46_ENDPOINT.into());
        let four = open(harness, CLIENT_V6.into(), NAT64_ENDPOINT.into());
        open(harness, CLIENT.into(), ENDPOINT.into());
        let (nat, backend, _) = ip_parts(&four);
        let (IpAddr::V4(nat), IpAddr::V4(backend)) = (nat, backend) else {
            panic!("a backend of IPv4");
        };
        let client = mapped(CLIENT);
        for destination in [
            ENDPOINT,
            PENDING,
            NAT46_ENDPOINT,
            Ipv4Addr::new(10, 0, 0, 200),
        ] {
            for source in [client, CLIENT_V6, mapped(destination)] {
                for packet in one_packet_per_kind(source, mapped(destination)) {
                    harness
                        .send(Side::A, &packet)
                        .expect_dropped(DropReason::MappedAddress);
                }
            }
        }
        for packet in one_packet_per_kind(client, ENDPOINT_V6) {
            harness
                .send(Side::A, &packet)
                .expect_dropped(DropReason::MappedAddress);
        }
        // Such packets are dropped although the network is not isolated.
        for (source, destination) in [
            (mapped(backend), mapped(nat)),
            (BACKENDS_V6[0], mapped(NAT)),
            (mapped(BACKENDS[0]), mapped(Ipv4Addr::new(10, 1, 0, 1))),
        ] {
            for packet in one_packet_per_kind(source, destination) {
                harness
                    .send(Side::Provider, &packet.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::MappedAddress);
            }
        }
        let port = match ip_parts(&four).2 {
            Transport::Tcp(tcp) => tcp.source,
            other => panic!("{other:?}"),
        };
        let answer = tcp_v6((mapped(backend), 8_443), (mapped(nat), port));
        let answer = answer.syn_ack(5_000, 2).with_source_mac(BACKEND_MAC);
        harness
            .send(Side::Provider, &answer)
            .expect_dropped(DropReason::MappedAddress);
    }),
    (
        "neighbour discovery of an IPv4-mapped address is dropped",
        |harness| {
            for target in [ENDPOINT, PENDING, Ipv4Addr::new(10, 0, 0, 200)] {
                for source in [CLIENT_V6, Ipv6Addr::UNSPECIFIED] {
                    harness
                        .send(Side::A, &neighbour_solicitation(mapped(target), source))
                        .expect_dropped(DropReason::MappedAddress);
                }
                harness
                    .send(
                        Side::A,
                        &neighbour_solicitation(ENDPOINT_V6, mapped(CLIENT)),
                    )
                    .expect_dropped(DropReason::MappedAddress);
                // An advertisement of a mapped address is no conflict.
                let mut claim = vec![0x20, 0, 0, 0];
                claim.extend(mapped(target).octets());
                let group = "ff02::1".parse().expect("an address");
                let claim =
                    icmp_v6(CLIENT_V6, group, 136, &claim).edit_ipv6(|ip| ip.hop_limit = 255);
                let claim = Packet {
                    to: [0x33, 0x33, 0, 0, 0, 1],
                    ..claim
                };
                harness
                    .send(Side::A, &claim)
                    .expect_dropped(DropReason::MappedAddress);
            }
            assert_eq!(harness.conflicts(), []);
        },
    ),
    (
        "an ICMP error about an IPv4-mapped address is dropped",
        |harness| {
            let left = open(harness, CLIENT_V6.into(), ENDPOINT_V6.into());
            let (nat, backend, _) = ip_parts(&left);
            for change in [true, false] {
                let mut about = left.clone();
                if let Content::Ipv6(ip) = &mut about.content {
                    if change {
                        ip.destination = mapped(BACKENDS[0]);
                    } else {
                        ip.source = mapped(NAT);
                    }
                }
                let error =
                    icmp_error(backend, nat, (1, 4), 0, &about, 500).with_source_mac(BACKEND_MAC);
                harness
                    .send(Side::Provider, &error)
                    .expect_dropped(DropReason::MappedAddress);
            }
        },
    ),
];

#[test]
fn special_source_and_destination_addresses_are_classified() {
    run_cases(CASES);
}
