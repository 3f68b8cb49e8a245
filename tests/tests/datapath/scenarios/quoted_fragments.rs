//! ICMP errors that quote a fragment, or that end in an extension structure (RFC 4884).

use gateway_common::DropReason;
use tests::{
    datapath::{
        differential::{BACKEND_MAC, DifferentialHarness, Side},
        scenario::{ProviderFlow, Scenario},
    },
    packet::{
        Content, Ipv4, Packet, Transport,
        builders::{icmp_error, ip_packet},
    },
};

use super::errors::{expect_embedded_addresses, parse_icmp_error};
use super::{payload_of, port_unreachable};
use crate::ScenarioCase;

/// Identification of the client's datagrams.
const CLIENT_ID: u32 = 0x77;

/// Sends a datagram in fragments. Returns its flow, the fragments as they were sent, and as they left.
#[track_caller]
fn send_fragments(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
) -> (ProviderFlow, Vec<Packet>, Vec<Packet>) {
    let opening = harness.send(Side::A, &scenario.client_datagram(b"hello"));
    let flow = scenario.expect_forwarded_to_service(&opening, 53);
    let sent = scenario
        .client_datagram(&payload_of(3_000))
        .split_into_fragments(1_400, CLIENT_ID);
    let left = super::send_all_expect_forwarded(harness, Side::A, Side::Provider, &sent);
    (flow, sent, left)
}

/// Returns type and code of an error about a packet's size.
const fn too_big(v4: bool) -> (u8, u8) {
    if v4 { (3, 4) } else { (2, 0) }
}

/// Returns type and code of time exceeded in transit.
const fn time_exceeded(v4: bool) -> (u8, u8) {
    if v4 { (11, 0) } else { (3, 0) }
}

/// Returns the offset of the L4 header, the position among fragments, and the payload length of an embedded packet. The
/// position is the offset in bytes, plus 1 if more fragments follow.
#[track_caller]
fn parse_embedded(embedded: &[u8], v4: bool) -> (usize, u16, u16) {
    let word = |at: usize| u16::from_be_bytes([embedded[at], embedded[at + 1]]);
    if v4 {
        let position = (word(6) & 0x1fff) << 3 | word(6) >> 13 & 1;
        return (20, position, word(2) - 20);
    }
    if embedded[6] != 44 {
        return (40, 0, word(4));
    }
    assert_eq!(embedded[40..42], [17, 0], "next header, reserved");
    (48, word(42), word(4) - 8)
}

/// Expects that an embedded packet begins like the first fragment that was sent, in the client's family.
#[track_caller]
fn expect_embedded_first_fragment(embedded: &[u8], scenario: Scenario, sent: &Packet) {
    let frame = sent.bytes(false);
    let (l4, position, length) = parse_embedded(embedded, scenario.is_v4());
    let (sent_l4, sent_position, sent_length) = parse_embedded(&frame[14..], scenario.is_v4());
    assert_eq!((position, length), (sent_position, sent_length));
    assert_eq!(position, 1, "the first, and more follow");
    // Ports, length and checksum.
    assert_eq!(embedded[l4..l4 + 8], frame[14 + sent_l4..][..8]);
    let addresses = if scenario.is_v4() { 12..20 } else { 8..40 };
    assert_eq!(embedded[addresses.clone()], frame[14..][addresses]);
}

/// Returns an error that quotes as many bytes of a packet, followed by an extension structure.
fn error_with_extensions(
    scenario: Scenario,
    flow: ProviderFlow,
    kind: (u8, u8),
    about: &Packet,
    datagram_len: usize,
) -> Packet {
    let v4 = scenario.provider_is_v4();
    let units = u8::try_from(datagram_len / if v4 { 4 } else { 8 }).expect("few units");
    let mut message = if v4 {
        vec![0, units, 0, 0]
    } else {
        vec![units, 0, 0, 0]
    };
    message.extend(&about.bytes(false)[14..]);
    message.resize(4 + datagram_len, 0);
    message.extend(EXTENSION);
    let transport = Transport::Icmp(kind.0, kind.1, message);
    ip_packet(scenario.router(), flow.nat.ip(), transport).with_source_mac(BACKEND_MAC)
}

/// An extension structure with one MPLS object (RFC 4950).
const EXTENSION: [u8; 12] = [0x20, 0, 0x9a, 0x6a, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0xff];

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "an ICMP error about a first fragment reaches the client",
        |harness, scenario| {
            let (flow, sent, left) = send_fragments(harness, scenario);
            let v4 = scenario.provider_is_v4();
            for kind in [too_big(v4), time_exceeded(v4), port_unreachable(v4)] {
                // As much as each router quotes: the least for either family, and more.
                for max_len in [56, 100, 548] {
                    let error = icmp_error(
                        scenario.router(),
                        flow.nat.ip(),
                        kind,
                        1_280,
                        &left[0],
                        max_len,
                    );
                    let out = harness
                        .send(Side::Provider, &error.with_source_mac(BACKEND_MAC))
                        .expect_forwarded(Side::A);
                    let icmp = parse_icmp_error(&out.packet);
                    assert_eq!(
                        (icmp.source, icmp.destination),
                        (scenario.endpoint_ip(), scenario.client_ip())
                    );
                    expect_embedded_first_fragment(&icmp.embedded, scenario, &sent[0]);
                }
            }
        },
    ),
    (
        "a client's ICMP error about a first fragment reaches the backend",
        |harness, scenario| {
            let (flow, ..) = send_fragments(harness, scenario);
            let answer = flow.backend_datagram(&payload_of(3_000));
            let answer = answer.split_into_fragments(1_400, 9);
            let left = super::send_all_expect_forwarded(harness, Side::Provider, Side::A, &answer);
            let (client, endpoint) = (scenario.client_ip(), scenario.endpoint_ip());
            let kind = too_big(scenario.is_v4());
            let error = icmp_error(client, endpoint, kind, 1_280, &left[0], 548);
            let out = harness
                .send(Side::A, &error)
                .expect_forwarded(Side::Provider);
            let icmp = parse_icmp_error(&out.packet);
            assert_eq!(
                (icmp.source, icmp.destination),
                (flow.nat.ip(), flow.backend.ip())
            );
            let v4 = scenario.provider_is_v4();
            assert_eq!(icmp.kind, too_big(v4));
            let frame = answer[0].bytes(false);
            let (l4, position, _) = parse_embedded(&icmp.embedded, v4);
            let (sent_l4, ..) = parse_embedded(&frame[14..], v4);
            assert_eq!(position, 1);
            assert_eq!(icmp.embedded[l4..l4 + 8], frame[14 + sent_l4..][..8]);
        },
    ),
    (
        "the path MTU in an error about a fragment leaves room for the fragment header",
        |harness, scenario| {
            let (flow, _, left) = send_fragments(harness, scenario);
            let kind = too_big(scenario.provider_is_v4());
            let error = icmp_error(scenario.router(), flow.nat.ip(), kind, 1_340, &left[0], 548);
            let out = harness
                .send(Side::Provider, &error.with_source_mac(BACKEND_MAC))
                .expect_forwarded(Side::A);
            let wanted = match (scenario.is_v4(), scenario.provider_is_v4()) {
                (true, false) => 1_340 - 28,
                (false, true) => 1_340 + 20,
                _ => 1_340,
            };
            assert_eq!(parse_icmp_error(&out.packet).rest, wanted);
        },
    ),
    (
        "an ICMP error about a later fragment is dropped",
        |harness, scenario| {
            let (flow, _, left) = send_fragments(harness, scenario);
            let kind = too_big(scenario.provider_is_v4());
            for fragment in &left[1..] {
                let error =
                    icmp_error(scenario.router(), flow.nat.ip(), kind, 1_280, fragment, 548);
                harness
                    .send(Side::Provider, &error.with_source_mac(BACKEND_MAC))
                    .expect_dropped(DropReason::IcmpLaterFragment);
            }
        },
    ),
    (
        "an ICMP error that cuts the headers of a first fragment is dropped",
        |harness, scenario| {
            let (flow, _, left) = send_fragments(harness, scenario);
            let v4 = scenario.provider_is_v4();
            let least = if v4 { 28 } else { 56 };
            let error = |max_len| {
                icmp_error(
                    scenario.router(),
                    flow.nat.ip(),
                    too_big(v4),
                    1_280,
                    &left[0],
                    max_len,
                )
                .with_source_mac(BACKEND_MAC)
            };
            harness
                .send(Side::Provider, &error(least))
                .expect_forwarded(Side::A);
            harness
                .send(Side::Provider, &error(least - 1))
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "an extension structure is kept within a family, and cut off between them (RFC 4884)",
        |harness, scenario| {
            scenario.connect(harness);
            let data = scenario.client_ack().with_payload(&payload_of(600));
            let left = harness
                .send(Side::A, &data)
                .expect_forwarded(Side::Provider)
                .packet;
            let flow = scenario.expect_forwarded_to_service(&harness.send(Side::A, &data), 8_443);
            let v4 = scenario.provider_is_v4();
            for kind in [time_exceeded(v4), port_unreachable(v4)] {
                for datagram_len in [128, 136, 200] {
                    let error = error_with_extensions(scenario, flow, kind, &left, datagram_len);
                    let out = harness
                        .send(Side::Provider, &error)
                        .expect_forwarded(Side::A);
                    let icmp = parse_icmp_error(&out.packet);
                    let first_word = icmp.rest.to_be_bytes();
                    let embedded_len = if scenario.is_translated() {
                        assert_eq!(icmp.rest, 0);
                        let growth = if scenario.is_v4() { -20 } else { 20 };
                        datagram_len.checked_add_signed(growth).expect("a length")
                    } else {
                        assert_eq!(
                            first_word.iter().map(|b| usize::from(*b)).sum::<usize>(),
                            datagram_len / if v4 { 4 } else { 8 }
                        );
                        datagram_len + EXTENSION.len()
                    };
                    assert_eq!(icmp.embedded.len(), embedded_len);
                    let end = out.packet.bytes(false).len();
                    assert_eq!(
                        end,
                        14 + if scenario.is_v4() { 28 } else { 48 } + embedded_len
                    );
                    expect_embedded_addresses(&icmp.embedded, &data);
                }
            }
        },
    ),
    (
        "a length that RFC 4884 does not allow is no extension structure",
        |harness, scenario| {
            scenario.connect(harness);
            let data = scenario.client_ack().with_payload(&payload_of(600));
            let sent = harness.send(Side::A, &data);
            let flow = scenario.expect_forwarded_to_service(&sent, 8_443);
            let about = sent.expect_forwarded(Side::Provider).packet;
            let v4 = scenario.provider_is_v4();
            for datagram_len in [8, 120, 800] {
                let error = error_with_extensions(scenario, flow, time_exceeded(v4), &about, 200);
                let error = with_length(error, v4, datagram_len);
                let out = harness
                    .send(Side::Provider, &error)
                    .expect_forwarded(Side::A);
                let icmp = parse_icmp_error(&out.packet);
                let growth = match (scenario.is_v4(), v4) {
                    (true, false) => -20,
                    (false, true) => 20,
                    _ => 0,
                };
                let wanted = (200 + EXTENSION.len()).checked_add_signed(growth);
                assert_eq!(Some(icmp.embedded.len()), wanted);
            }
        },
    ),
];

/// Replaces the length of the datagram in an error.
fn with_length(mut packet: Packet, v4: bool, length: usize) -> Packet {
    let transport = match &mut packet.content {
        Content::Ipv4(Ipv4 { transport, .. }) => transport,
        Content::Ipv6(ip) => &mut ip.transport,
        _ => panic!("no IP"),
    };
    match transport {
        Transport::Icmp(_, _, message) => {
            let (at, unit) = if v4 { (1, 4) } else { (0, 8) };
            message[at] = u8::try_from(length / unit).expect("few units");
        }
        _ => panic!("no ICMP"),
    }
    packet
}
