//! ICMP errors of others: who is told, and what.

use std::net::IpAddr;

use gateway_common::DropReason;
use tests::{
    differential::{BACKEND_MAC, CLIENT_MAC, Side},
    packet::{Content, Packet, Transport, flag::RST},
    scenario::{between, datagram, error, ip},
};

use super::{open_udp_flow, payload_of, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

const CASES: &[ScenarioCase] = &[
    (
        "a server's refusal of a datagram reaches the client",
        |lab, scenario| {
            let question = scenario.question(b"question");
            let sent = lab.send(Side::A, &question);
            let flow = scenario.went_to_service(&sent, 53);
            let left = sent.expect_forwarded(Side::Provider).packet;
            let kind = port_unreachable(scenario.provider_is_v4());
            for max_len in [28, 48, 500] {
                let max_len = if scenario.provider_is_v4() {
                    max_len
                } else {
                    max_len.max(48)
                };
                let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, max_len);
                let out = lab
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
        "a router's error comes from the endpoint: nobody learns of the router",
        |lab, scenario| {
            scenario.connect(lab);
            let data = scenario.from_client().with_payload(b"data");
            let left = lab
                .send(Side::A, &data)
                .expect_forwarded(Side::Provider)
                .packet;
            let (kind, wanted) = if scenario.provider_is_v4() {
                ((11, 0), 0)
            } else {
                ((3, 0), 0)
            };
            let nat = ip(&left).0;
            let expired = error(scenario.router(), nat, kind, wanted, &left, 100)
                .with_source_mac(BACKEND_MAC);
            let out = lab
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
        "a smaller MTU on the way is told in the client's terms (RFC 7915)",
        |lab, scenario| {
            scenario.connect(lab);
            let data = scenario.from_client().with_payload(&payload_of(1_000));
            let left = lab
                .send(Side::A, &data)
                .expect_forwarded(Side::Provider)
                .packet;
            let nat = ip(&left).0;
            let kind = if scenario.provider_is_v4() {
                (3, 4)
            } else {
                (2, 0)
            };
            let too_big =
                error(scenario.router(), nat, kind, 1_300, &left, 500).with_source_mac(BACKEND_MAC);
            let out = lab.send(Side::Provider, &too_big).expect_forwarded(Side::A);
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
    ("a client's error reaches the server", |lab, scenario| {
        let sent = lab.send(Side::A, &scenario.question(b"question"));
        let flow = scenario.went_to_service(&sent, 53);
        let answer = flow.answer(b"answer");
        let left = lab
            .send(Side::Provider, &answer)
            .expect_forwarded(Side::A)
            .packet;
        let kind = port_unreachable(scenario.is_v4());
        let refusal = error(
            scenario.client_ip(),
            scenario.endpoint_ip(),
            kind,
            0,
            &left,
            500,
        );
        let out = lab
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
    }),
    (
        "an error whose checksum is wrong is not believed",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            let mut frame = refusal.with_source_mac(BACKEND_MAC).bytes(false);
            let last = frame.len() - 1;
            frame[last] ^= 1;
            lab.send_bytes(Side::Provider, &frame)
                .expect_dropped(DropReason::ChecksumWrong);
        },
    ),
    (
        "an error about a header whose checksum is wrong is not believed (RFC 5508)",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            if !scenario.provider_is_v4() {
                return;
            }
            let refusal = error(flow.backend.ip(), flow.nat.ip(), (3, 3), 0, &left, 500);
            let mut refusal = refusal.with_source_mac(BACKEND_MAC);
            if let Content::Ipv4(ipv4) = &mut refusal.content
                && let Transport::Icmp(_, _, body) = &mut ipv4.transport
            {
                // The time to live in it, without what belongs to that.
                body[4 + 8] ^= 1;
            }
            lab.send(Side::Provider, &refusal)
                .expect_dropped(DropReason::ChecksumWrong);
        },
    ),
    ("an error about no flow goes nowhere", |lab, scenario| {
        let sent = lab.send(Side::A, &scenario.question(b"question"));
        let flow = scenario.went_to_service(&sent, 53);
        let kind = port_unreachable(scenario.provider_is_v4());
        let mut nat = flow.nat;
        nat.set_port(nat.port() ^ 2);
        let other = datagram(nat, flow.backend, b"never sent");
        let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &other, 500);
        lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
            .expect_dropped(DropReason::NoFlow);
    }),
    (
        "an error to one address about a packet of another goes nowhere",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let other = lab.other_snat_address(flow.nat.ip());
            let refusal = error(flow.backend.ip(), other, kind, 0, &left, 500);
            lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                .expect_dropped(DropReason::NoFlow);
        },
    ),
    (
        "an error that says too little is malformed",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            let (kind, min_len) = if scenario.provider_is_v4() {
                ((3, 3), 28)
            } else {
                ((1, 4), 48)
            };
            for max_len in [0, 8, min_len - 1] {
                let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, max_len);
                lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::Malformed);
            }
        },
    ),
    (
        "an error about an error, or about what is not carried, is counted",
        |lab, scenario| {
            let sent = lab.send(Side::A, &scenario.question(b"question"));
            let flow = scenario.went_to_service(&sent, 53);
            let (icmp, kind) = if scenario.provider_is_v4() {
                (1, (3, 3))
            } else {
                (58, (1, 4))
            };
            for protocol in [icmp, 47, 132] {
                let transport = Transport::Other(protocol, vec![3; 40]);
                let about = between(flow.nat.ip(), flow.backend.ip(), transport);
                let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &about, 500);
                lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
        },
    ),
    (
        "an error of a flow that is cut goes nowhere",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            lab.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            lab.send(Side::Provider, &refusal.with_source_mac(BACKEND_MAC))
                .expect_dropped(DropReason::ConnectionRevoked);
        },
    ),
    (
        "an error whose time ends here is not answered with another",
        |lab, scenario| {
            let (flow, left) = open_udp_flow(lab, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            lab.send(
                Side::Provider,
                &refusal.with_source_mac(BACKEND_MAC).hops(1),
            )
            .expect_dropped(DropReason::TtlExpired);
        },
    ),
    (
        "no refusal is answered: neither an error nor a reset, nor to who can't be a host",
        |lab, scenario| {
            let elsewhere = (scenario.endpoint_ip(), 54).into();
            let from_group =
                datagram(scenario.client(), elsewhere, b"x").with_source_mac([1, 0, 94, 0, 0, 1]);
            lab.send(Side::A, &from_group)
                .expect_dropped(DropReason::MartianSource);
            lab.send(Side::A, &scenario.segment().with_flags(RST, 1, 1))
                .expect_dropped(DropReason::NoFlow);
        },
    ),
];

/// An ICMP error that was forwarded.
struct ForwardedIcmpError {
    kind: (u8, u8),
    rest: u32,
    source: IpAddr,
    destination: IpAddr,
    embedded: Vec<u8>,
}

fn parse_icmp_error(packet: &Packet) -> ForwardedIcmpError {
    let (source, destination, transport) = ip(packet);
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

/// What is embedded names the addresses and ports that the packet was sent with, so that its sender
/// finds its socket.
#[track_caller]
fn expect_embedded_addresses(embedded: &[u8], sent: &Packet) {
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
    // And the header in it is whole: IPv4's has its checksum.
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
}
