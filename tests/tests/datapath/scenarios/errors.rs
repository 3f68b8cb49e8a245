//! ICMP related errors: their receivers, and their translation.

use std::net::IpAddr;

use gateway_common::DropReason;
use tests::{
    datapath::differential::{BACKEND_MAC, CLIENT_MAC, Side},
    packet::{
        Content, Packet, Transport,
        builders::{icmp_error, ip_packet, udp_datagram},
        flag::RST,
        read::ip_parts,
    },
};

use super::{open_udp_flow, payload_of, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

const CASES: &[ScenarioCase] = &[
    (
        "a backend's port unreachable reaches the client",
        |harness, scenario| {
            let question = scenario.client_datagram(b"question");
            let sent = harness.send(Side::A, &question);
            let flow = scenario.expect_forwarded_to_service(&sent, 53);
            let left = sent.expect_forwarded(Side::Provider).packet;
            let kind = port_unreachable(scenario.provider_is_v4());
            for max_len in [28, 48, 500] {
                let max_len = if scenario.provider_is_v4() {
                    max_len
                } else {
                    max_len.max(48)
                };
                let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, max_len);
                let out = harness
                    .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                    .expect_forwarded(Side::A);
                let icmp = parse_icmp_error(&out.packet);
                assert_eq!(icmp.kind, if scenario.is_v4() { (3, 3) } else { (1, 4) });
                assert_eq!(
                    (icmp.source, icmp.destination),
                    (scenario.endpoint_ip(), scenario.client_ip())
                );
                expect_embedded_addresses(&icmp.embedded, &question);
            }
        },
    ),
    (
        "a router's ICMP error comes from the endpoint: the router is not disclosed",
        |harness, scenario| {
            scenario.connect(harness);
            let data = scenario.client_ack().with_payload(b"data");
            let left = harness
                .send(Side::A, &data)
                .expect_forwarded(Side::Provider)
                .packet;
            let (kind, wanted) = if scenario.provider_is_v4() {
                ((11, 0), 0)
            } else {
                ((3, 0), 0)
            };
            let nat = ip_parts(&left).0;
            let expired = icmp_error(scenario.router(), nat, kind, wanted, &left, 100)
                .with_source_mac(BACKEND_MAC);
            let out = harness
                .send(Side::Provider, &expired)
                .expect_forwarded(Side::A)
                .expect_destination_mac(CLIENT_MAC);
            let icmp = parse_icmp_error(&out.packet);
            assert_eq!(icmp.kind, if scenario.is_v4() { (11, 0) } else { (3, 0) });
            assert_eq!(icmp.source, scenario.endpoint_ip());
            expect_embedded_addresses(&icmp.embedded, &data);
        },
    ),
    (
        "a smaller path MTU is reported in the client's family (RFC 7915)",
        |harness, scenario| {
            scenario.connect(harness);
            let data = scenario.client_ack().with_payload(&payload_of(1_000));
            let left = harness
                .send(Side::A, &data)
                .expect_forwarded(Side::Provider)
                .packet;
            let nat = ip_parts(&left).0;
            let kind = if scenario.provider_is_v4() {
                (3, 4)
            } else {
                (2, 0)
            };
            let too_big = icmp_error(scenario.router(), nat, kind, 1_300, &left, 500)
                .with_source_mac(BACKEND_MAC);
            let out = harness
                .send(Side::Provider, &too_big)
                .expect_forwarded(Side::A);
            let icmp = parse_icmp_error(&out.packet);
            let wanted = match (scenario.provider_is_v4(), scenario.is_v4()) {
                (true, false) => 1_320,
                (false, true) => 1_280,
                _ => 1_300,
            };
            assert_eq!(icmp.kind, if scenario.is_v4() { (3, 4) } else { (2, 0) });
            assert_eq!(icmp.rest, wanted);
            expect_embedded_addresses(&icmp.embedded, &data);
        },
    ),
    (
        "a client's ICMP error reaches the backend",
        |harness, scenario| {
            let sent = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&sent, 53);
            let answer = flow.backend_datagram(b"answer");
            let left = harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A)
                .packet;
            let kind = port_unreachable(scenario.is_v4());
            let refusal = icmp_error(
                scenario.client_ip(),
                scenario.endpoint_ip(),
                kind,
                0,
                &left,
                500,
            );
            let out = harness
                .send(Side::A, &refusal)
                .expect_forwarded(Side::Provider)
                .expect_destination_mac(BACKEND_MAC);
            let icmp = parse_icmp_error(&out.packet);
            assert_eq!(
                icmp.kind,
                if scenario.provider_is_v4() {
                    (3, 3)
                } else {
                    (1, 4)
                }
            );
            assert_eq!(
                (icmp.source, icmp.destination),
                (flow.nat.ip(), flow.backend.ip())
            );
            expect_embedded_addresses(&icmp.embedded, &answer);
        },
    ),
    (
        "an ICMP error with a wrong checksum is dropped",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            let mut frame = refusal.with_source_mac(BACKEND_MAC).bytes(false);
            let last = frame.len() - 1;
            frame[last] ^= 1;
            harness
                .send_bytes(Side::Provider, &frame)
                .expect_dropped(DropReason::ChecksumWrong);
        },
    ),
    (
        "an ICMP error about a header with a wrong checksum is dropped (RFC 5508)",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            if !scenario.provider_is_v4() {
                return;
            }
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), (3, 3), 0, &left, 500);
            let mut refusal = refusal.with_source_mac(BACKEND_MAC);
            if let Content::Ipv4(ipv4) = &mut refusal.content
                && let Transport::Icmp(_, _, body) = &mut ipv4.transport
            {
                // The TTL of the embedded header is changed without its checksum.
                body[4 + 8] ^= 1;
            }
            harness
                .send(Side::Provider, &refusal)
                .expect_dropped(DropReason::ChecksumWrong);
        },
    ),
    (
        "an ICMP error about no flow is dropped",
        |harness, scenario| {
            let sent = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&sent, 53);
            let kind = port_unreachable(scenario.provider_is_v4());
            let mut nat = flow.nat;
            nat.set_port(nat.port() ^ 2);
            let other = udp_datagram(nat, flow.backend, b"never sent");
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &other, 500);
            harness
                .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                .expect_dropped(DropReason::NoFlow);
        },
    ),
    (
        "an ICMP error to one address about a packet of another is dropped",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let other = harness.other_snat_address(flow.nat.ip());
            let refusal = icmp_error(flow.backend.ip(), other, kind, 0, &left, 500);
            harness
                .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                .expect_dropped(DropReason::NoFlow);
        },
    ),
    (
        "an ICMP error that embeds too little is malformed",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            let (kind, min_len) = if scenario.provider_is_v4() {
                ((3, 3), 28)
            } else {
                ((1, 4), 48)
            };
            for max_len in [0, 8, min_len - 1] {
                let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, max_len);
                harness
                    .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::Malformed);
            }
        },
    ),
    (
        "an ICMP error about an ICMP error or an unsupported protocol is dropped",
        |harness, scenario| {
            let sent = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&sent, 53);
            let (icmp, kind) = if scenario.provider_is_v4() {
                (1, (3, 3))
            } else {
                (58, (1, 4))
            };
            for protocol in [icmp, 47, 132] {
                let transport = Transport::Other(protocol, vec![3; 40]);
                let about = ip_packet(flow.nat.ip(), flow.backend.ip(), transport);
                let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &about, 500);
                harness
                    .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
        },
    ),
    (
        "an ICMP error about a revoked flow is dropped",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            harness.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            harness
                .send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                .expect_dropped(DropReason::ConnectionRevoked);
        },
    ),
    (
        "an ICMP error whose TTL expires is not answered with another",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            harness
                .send(
                    Side::Provider,
                    &refusal.with_source_mac(BACKEND_MAC).with_hop_limit(1),
                )
                .expect_dropped(DropReason::TtlExpired);
        },
    ),
    (
        "ICMP errors, resets and packets of martian sources are not answered",
        |harness, scenario| {
            let elsewhere = (scenario.endpoint_ip(), 54).into();
            let from_group = udp_datagram(scenario.client_socket(), elsewhere, b"x")
                .with_source_mac([1, 0, 94, 0, 0, 1]);
            harness
                .send(Side::A, &from_group)
                .expect_dropped(DropReason::MartianSource);
            harness
                .send(Side::A, &scenario.client_segment().with_flags(RST, 1, 1))
                .expect_dropped(DropReason::NoFlow);
        },
    ),
];

/// An ICMP error that was forwarded.
pub(super) struct ForwardedIcmpError {
    pub(super) kind: (u8, u8),
    pub(super) rest: u32,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) embedded: Vec<u8>,
}

pub(super) fn parse_icmp_error(packet: &Packet) -> ForwardedIcmpError {
    let (source, destination, transport) = ip_parts(packet);
    match transport {
        Transport::Icmp(kind, code, body) => ForwardedIcmpError {
            kind: (*kind, *code),
            rest: u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
            source,
            destination,
            embedded: body[4..].to_vec(),
        },
        other => panic!("no ICMP: {other:?}"),
    }
}

/// Expects that the embedded packet has the addresses and ports that it was sent with, so that its sender finds its
/// socket.
#[track_caller]
pub(super) fn expect_embedded_addresses(embedded: &[u8], sent: &Packet) {
    let frame = sent.bytes(false);
    let (addresses, ports) = match &sent.content {
        Content::Ipv4(_) => (12..20, 20..24),
        _ => (8..40, 40..44),
    };
    assert_eq!(
        embedded[addresses.clone()],
        frame[14..][addresses],
        "the addresses"
    );
    assert_eq!(embedded[ports.clone()], frame[14..][ports], "the ports");
    // The embedded header is intact: an IPv4 header has its checksum.
    if matches!(sent.content, Content::Ipv4(_)) {
        let sum: u32 = embedded[..20]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(
            (sum >> 16) + (sum & 0xffff),
            0xffff,
            "the header's checksum"
        );
    }
}

#[test]
fn icmp_errors_are_related_in_every_scenario() {
    run_scenarios(CASES);
    run_scenarios(super::quoted_fragments::CASES);
}
