//! MSS clamping, and packets larger than the MTU.

use super::{open_udp_flow, payload_of};
use crate::ScenarioCase;
use gateway_common::DropReason;
use std::collections::BTreeSet;
use tests::{
    datapath::differential::{BACKEND_MAC, Side},
    packet::{
        Content, Transport,
        builders::{icmp_error, tcp_segment},
        read::tcp_of,
    },
};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "an MSS that does not fit both networks is clamped",
        |harness, scenario| {
            let max_mss: u16 = if scenario.is_v4() && scenario.provider_is_v4() {
                1_460
            } else {
                1_440
            };
            for options in [
                vec![2, 4, 0xff, 0xff, 4, 2, 1, 1],
                vec![1, 2, 4, 0x23, 0x28, 1, 4, 2],
                vec![3, 3, 7, 2, 4, 0x05, 0xdc, 0],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                let found = &tcp_of(&out.packet).options;
                let at = options
                    .windows(2)
                    .position(|pair| pair == [2, 4])
                    .expect("the option");
                assert_eq!(found[at + 2..at + 4], max_mss.to_be_bytes());
                let rest = |bytes: &[u8]| [&bytes[..at + 2], &bytes[at + 4..]].concat();
                assert_eq!(rest(found), rest(&options));
            }
        },
    ),
    (
        "an MSS that fits is kept, and so are other options",
        |harness, scenario| {
            for options in [
                vec![2, 4, 2, 0x18, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
                vec![30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8],
                vec![],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "malformed options are forwarded unchanged",
        |harness, scenario| {
            for options in [
                vec![2, 0, 0, 0],
                vec![2, 3, 9, 9],
                vec![3, 200, 1, 1],
                vec![5, 1, 1, 1],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "the largest packet that fits is forwarded, one byte more is answered with the MTU",
        |harness, scenario| {
            scenario.connect(harness);
            let (head, fits) = match (scenario.is_v4(), scenario.provider_is_v4()) {
                (true, true) => (40, 1_500),
                (true, false) => (40, 1_480),
                (false, true) => (60, 1_520),
                (false, false) => (60, 1_500),
            };
            let full = |more: usize| {
                scenario.client_ack().with_payload(&vec![
                    7;
                    usize::try_from(fits).expect("small")
                        - head
                        + more
                ])
            };
            harness
                .send(Side::A, &full(0))
                .expect_forwarded(Side::Provider);
            let error = harness
                .send(Side::A, &full(1))
                .expect_icmp_error(DropReason::PacketTooBig);
            let kind = if scenario.is_v4() { (3, 4) } else { (2, 0) };
            assert_eq!((error.kind, error.rest), (kind, fits));
            assert_eq!(
                (error.source, error.destination),
                (scenario.endpoint_ip(), scenario.client_ip())
            );
            error.expect_embedded(&full(1));
        },
    ),
    (
        "a translated IPv4 packet of up to 1,260 bytes may be fragmented, a longer one may not (RFC 7915)",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let opening = harness.send(Side::A, &scenario.client_datagram(b"hello"));
            let datagrams = scenario.expect_forwarded_to_service(&opening, 53);
            let mut seen = BTreeSet::new();
            for (length, is_fragmentable) in [(40, true), (1_260, true), (1_261, false)] {
                let (tcp, udp) = (payload_of(2_000), payload_of(2_000));
                let (tcp, udp) = (&tcp[..length - 40], &udp[..length - 28 - 12]);
                let sent = if scenario.is_v4() {
                    [
                        (Side::Provider, flow.backend_ack().with_payload(tcp)),
                        (Side::Provider, datagrams.backend_datagram(udp)),
                    ]
                } else {
                    [
                        (Side::A, scenario.client_ack().with_payload(tcp)),
                        (Side::A, scenario.client_datagram(udp)),
                    ]
                };
                for (side, packet) in sent {
                    let to = if side == Side::A {
                        Side::Provider
                    } else {
                        Side::A
                    };
                    let left = harness.send(side, &packet).expect_forwarded(to).packet;
                    let Content::Ipv4(ip) = left.content else {
                        assert!(!scenario.is_translated());
                        continue;
                    };
                    if !scenario.is_translated() {
                        // The sender decides within a family.
                        assert_eq!(ip.fragment, 0x4000);
                        continue;
                    }
                    let is_udp = matches!(ip.transport, Transport::Udp(_));
                    if is_fragmentable || is_udp {
                        assert_eq!(ip.fragment, 0, "{length} bytes");
                        assert!(seen.insert(ip.id), "{} is used twice", ip.id);
                    } else {
                        assert_eq!((ip.fragment, ip.id), (0x4000, 0), "{length} bytes");
                    }
                }
            }
        },
    ),
    (
        "a translated ICMP error may be fragmented, as any short packet (RFC 7915)",
        |harness, scenario| {
            let (flow, left) = open_udp_flow(harness, scenario);
            if !scenario.is_v4() || scenario.provider_is_v4() {
                return;
            }
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), (1, 4), 0, &left, 500)
                .with_source_mac(BACKEND_MAC);
            let mut seen = BTreeSet::new();
            for _ in 0..3 {
                let out = harness
                    .send(Side::Provider, &refusal)
                    .expect_forwarded(Side::A);
                assert_eq!(out.ipv4().fragment, 0);
                assert!(seen.insert(out.ipv4().id));
            }
        },
    ),
    (
        "an egress below the least MTU of IPv6 lowers the MSS, and longer packets are counted",
        |harness, scenario| {
            if scenario.is_v4() || !scenario.provider_is_v4() {
                return;
            }
            scenario.connect(harness);
            // The harness has one MTU only, so the packets are processed natively.
            for egress in harness.native_maps().egress.values_mut() {
                egress.mtu = 1_000;
            }
            let sized = |length: usize| scenario.client_ack().with_payload(&vec![7; length - 60]);
            harness
                .run_native(Side::A, &sized(1_020))
                .expect_forwarded(Side::Provider);
            for length in [1_021, 1_280] {
                harness
                    .run_native(Side::A, &sized(length))
                    .expect_dropped(DropReason::PacketTooBig);
            }
            let error = harness
                .run_native(Side::A, &sized(1_281))
                .expect_icmp_error(DropReason::PacketTooBig);
            assert_eq!((error.kind, error.rest), ((2, 0), 1_280));
            let other = (scenario.client_ip(), 40_001).into();
            let syn = tcp_segment(other, scenario.https_socket()).syn(1);
            let out = harness
                .run_native(Side::A, &syn)
                .expect_forwarded(Side::Provider);
            // The consumer's interface has the same MTU.
            assert_eq!(tcp_of(&out.packet).options[2..4], 940u16.to_be_bytes());
        },
    ),
    (
        "a backend's packet that is too big is answered with the MTU",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let full = |length| flow.backend_ack().with_payload(&vec![7; length]);
            let (head, fits) = match (scenario.provider_is_v4(), scenario.is_v4()) {
                (true, true) => (40, 1_500),
                (true, false) => (40, 1_480),
                (false, true) => (60, 1_520),
                (false, false) => (60, 1_500),
            };
            harness
                .send(Side::Provider, &full(fits - head))
                .expect_forwarded(Side::A);
            let out = harness.send(Side::Provider, &full(fits - head + 1));
            let error = out.expect_icmp_error(DropReason::PacketTooBig);
            assert_eq!(
                (error.source, error.destination),
                (flow.nat.ip(), flow.backend.ip())
            );
            error.expect_embedded(&full(fits - head + 1));
        },
    ),
];
