//! Priority tags: a frame with VLAN identifier 0 is processed, and passed to the host, as an untagged one.

use gateway_common::{DropReason, Verdict, drop_reason::Attribution};
use tests::{
    datapath::differential::{
        BACKENDS, CLIENT, CLIENT_MAC, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT, ENDPOINT_V6,
        HTTPS, Side, arp_request, icmp, icmp_v6, neighbour_solicitation, tcp, tcp_v6, udp, udp_v6,
    },
    packet::Packet,
};

use crate::{Case, run_cases};

/// Tag control information without a VLAN: all priorities, with and without drop eligibility.
const PRIORITIES: [u16; 4] = [0x0000, 0x1000, 0x6000, 0xf000];

/// Returns the frame with a tag behind its MAC addresses.
fn tagged(frame: &[u8], ether_type: u16, control: u16) -> Vec<u8> {
    let tag = [ether_type.to_be_bytes(), control.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// Sends a packet without and with a priority tag, and expects the same of both. Returns how the first was processed.
#[track_caller]
fn expect_alike(harness: &mut DifferentialHarness, side: Side, packet: &Packet) -> Verdict {
    let frame = packet.bytes(false);
    let untagged = harness.send(side, packet);
    for control in PRIORITIES {
        let result = harness.send_bytes(side, &tagged(&frame, 0x8100, control));
        assert_eq!(
            (result.verdict, &result.frame),
            (untagged.verdict, &untagged.frame),
            "{control:04x}"
        );
    }
    untagged.verdict
}

const CASES: &[Case] = &[
    (
        "packets of a flow are forwarded without their priority tag, in both directions",
        |harness| {
            let client = (CLIENT, 40_000);
            let syn = tcp(client, (ENDPOINT, HTTPS)).syn(1_000);
            let opened = harness.send_bytes(Side::A, &tagged(&syn.bytes(false), 0x8100, 0xa000));
            opened.expect_forwarded(Side::Provider).expect_snat_source();
            let flow = harness.connect(40_001);
            for (side, packet) in [
                (Side::A, flow.client_ack().with_payload(b"request")),
                (Side::Provider, flow.backend_ack().with_payload(b"answer")),
            ] {
                let verdict = expect_alike(harness, side, &packet);
                assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
            }
        },
    ),
    ("IPv6 and UDP packets are too", |harness| {
        let v6 = (CLIENT_V6, 40_000);
        for packet in [
            tcp_v6(v6, (ENDPOINT_V6, HTTPS)).syn(1),
            udp_v6(v6, (ENDPOINT_V6, DNS), b"question"),
            udp((CLIENT, 40_000), (ENDPOINT, DNS), b"question"),
        ] {
            let verdict = expect_alike(harness, Side::A, &packet);
            assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
        }
    }),
    (
        "ARP, neighbour solicitations and ping are answered without a tag",
        |harness| {
            for packet in [
                arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)),
                neighbour_solicitation(ENDPOINT_V6, CLIENT_V6),
                icmp(CLIENT, ENDPOINT, 8, 0, &[0; 8]),
                icmp_v6(CLIENT_V6, ENDPOINT_V6, 128, &[0; 8]),
            ] {
                assert_eq!(expect_alike(harness, Side::A, &packet), Verdict::Reply);
            }
        },
    ),
    ("rejects are sent without a tag", |harness| {
        let elsewhere = tcp((CLIENT, 40_000), (ENDPOINT, 81)).syn(1);
        let verdict = expect_alike(harness, Side::A, &elsewhere);
        assert!(matches!(verdict, Verdict::TcpReset(_)), "{verdict:?}");
        let elsewhere = udp((CLIENT, 40_000), (ENDPOINT, 54), b"x");
        let verdict = expect_alike(harness, Side::A, &elsewhere);
        assert!(matches!(verdict, Verdict::IcmpError(_)), "{verdict:?}");
    }),
    (
        "a frame that is passed to the host has no priority tag",
        |harness| {
            let host = "10.1.0.1".parse().expect("an address");
            let ping = icmp(BACKENDS[0], host, 8, 0, &[0; 8]).sent_to(Side::Provider);
            assert_eq!(expect_alike(harness, Side::Provider, &ping), Verdict::Pass);
        },
    ),
    (
        "a frame of an interface that is no attachment keeps its priority tag",
        |harness| {
            let frame = tcp((CLIENT, 1), (ENDPOINT, HTTPS)).syn(1).bytes(false);
            let frame = tagged(&frame, 0x8100, 0);
            let result = harness.send_bytes(Side::Host, &frame);
            assert_eq!((result.verdict, result.frame), (Verdict::Pass, frame));
        },
    ),
    (
        "VLANs, service tags and double tags are dropped, or passed with their tags",
        |harness| {
            let frame = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1).bytes(false);
            for frame in [
                tagged(&frame, 0x8100, 1),
                tagged(&frame, 0x8100, 0x0fff),
                tagged(&frame, 0x8100, 0xe800),
                tagged(&frame, 0x88a8, 0),
                tagged(&frame, 0x88a8, 1),
                tagged(&tagged(&frame, 0x8100, 0), 0x8100, 0),
                tagged(&tagged(&frame, 0x8100, 5), 0x8100, 0),
                tagged(&tagged(&frame, 0x88a8, 5), 0x8100, 0),
                tagged(&tagged(&frame, 0x8100, 0), 0x88a8, 0),
            ] {
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::VlanTagged);
                let result = harness.send_bytes(Side::Provider, &frame);
                assert_eq!((result.verdict, result.frame), (Verdict::Pass, frame));
            }
        },
    ),
    (
        "a frame that ends within or behind its tag is dropped",
        |harness| {
            let frame = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1).bytes(false);
            let frame = tagged(&frame, 0x8100, 0);
            for (end, reason) in [
                (14, DropReason::VlanTagged),
                (17, DropReason::VlanTagged),
                (18, DropReason::Truncated),
                (30, DropReason::Truncated),
            ] {
                harness
                    .send_bytes(Side::A, &frame[..end])
                    .expect_dropped(reason);
            }
        },
    ),
    // The kernel does not refuse to remove four bytes of a frame that has them.
    (
        "a frame whose tag can't be removed is dropped, or passed",
        |harness| {
            harness.native_maps().helpers_fail = true;
            let frame = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1).bytes(false);
            let frame = tagged(&frame, 0x8100, 0);
            let verdict = harness.send_native_bytes(Side::A, &frame);
            assert!(
                matches!(
                    verdict,
                    Verdict::Drop(Attribution {
                        reason: DropReason::BufferAdjustFailed,
                        ..
                    })
                ),
                "{verdict:?}"
            );
            let verdict = harness.send_native_bytes(Side::Provider, &frame);
            assert_eq!(verdict, Verdict::Pass);
        },
    ),
];

#[test]
fn priority_tagged_frames_are_processed_as_untagged_ones() {
    run_cases(CASES);
}
