//! Parsing: truncated, malformed and unsupported frames are classified and dropped.

use std::net::Ipv4Addr;

use gateway_common::DropReason;
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS, CLIENT, CLIENT_MAC, DNS, ENDPOINT, HTTPS, Side, tcp, udp,
    },
    packet::{Content, Ipv4, Packet, Transport},
};

use crate::{Case, run_cases};

const CLIENT_SOCKET: (Ipv4Addr, u16) = (CLIENT, 40_000);
const WEB: (Ipv4Addr, u16) = (ENDPOINT, HTTPS);

fn syn() -> Packet {
    tcp(CLIENT_SOCKET, WEB).syn(1)
}

fn frame_with_ether_type(ether_type: u16) -> Packet {
    Packet {
        to: Side::A.mac(),
        from: CLIENT_MAC,
        content: Content::Other(ether_type, vec![0; 46]),
    }
}

const CASES: &[Case] = &[
    (
        "frames of an interface that is no attachment pass",
        |harness| {
            harness.send(Side::Host, &syn()).expect_passed(&syn());
        },
    ),
    (
        "a frame shorter than an Ethernet header is truncated",
        |harness| {
            // `BPF_PROG_TEST_RUN` rejects frames shorter than an Ethernet header.
            let frame = syn().bytes(false);
            harness
                .send_bytes(Side::A, &frame[..14])
                .expect_dropped(DropReason::Truncated);
        },
    ),
    (
        "a frame that ends within the IPv4 header is truncated",
        |harness| {
            let frame = syn().bytes(false);
            for end in [15, 20, 33] {
                harness
                    .send_bytes(Side::A, &frame[..end])
                    .expect_dropped(DropReason::Truncated);
            }
        },
    ),
    (
        "a frame that ends within the TCP header is truncated",
        |harness| {
            let frame = syn().bytes(false);
            for end in [34, 40, 53] {
                harness
                    .send_bytes(Side::A, &frame[..end])
                    .expect_dropped(DropReason::Truncated);
            }
        },
    ),
    (
        "a frame shorter than its total length is truncated",
        |harness| {
            let frame = syn().with_payload(b"0123456789").bytes(false);
            harness
                .send_bytes(Side::A, &frame[..frame.len() - 1])
                .expect_dropped(DropReason::Truncated);
        },
    ),
    (
        "a frame with padding behind its total length is forwarded",
        |harness| {
            let mut frame = syn().bytes(false);
            frame.extend([0; 12]);
            harness
                .send_bytes(Side::A, &frame)
                .expect_forwarded(Side::Provider);
        },
    ),
    ("IPv6 is dropped if the network is isolated", |harness| {
        harness
            .send(Side::A, &frame_with_ether_type(0x86dd))
            .expect_dropped(DropReason::Malformed);
    }),
    ("IPv6 passes if the network is not isolated", |harness| {
        let frame = frame_with_ether_type(0x86dd).sent_to(Side::Provider);
        harness.send(Side::Provider, &frame).expect_passed(&frame);
    }),
    (
        "a VLAN-tagged frame on an untagged attachment is dropped",
        |harness| {
            for tag in [0x8100, 0x88a8] {
                let frame = Packet {
                    content: Content::Other(tag, [&[0, 7, 8, 0][..], &[0; 42]].concat()),
                    ..frame_with_ether_type(tag)
                };
                harness
                    .send(Side::A, &frame)
                    .expect_dropped(DropReason::VlanTagged);
            }
        },
    ),
    (
        "an unknown EtherType is dropped if the network is isolated",
        |harness| {
            for ether_type in [0x0000, 0x0806 + 1, 0x8847, 0x88cc, 0xffff] {
                harness
                    .send(Side::A, &frame_with_ether_type(ether_type))
                    .expect_dropped(DropReason::EtherTypeUnsupported);
            }
        },
    ),
    ("a frame to another MAC address is dropped", |harness| {
        for mac in [[2, 9, 9, 9, 9, 9], [0xff; 6], [1, 0, 94, 0, 0, 251]] {
            let mut frame = syn();
            frame.to = mac;
            harness
                .send(Side::A, &frame)
                .expect_dropped(DropReason::DestinationMac);
        }
    }),
    ("IP version 5 is malformed", |harness| {
        let mut frame = syn().bytes(false);
        frame[14] = 0x55;
        harness
            .send_bytes(Side::A, &frame)
            .expect_dropped(DropReason::Malformed);
    }),
    (
        "an IPv4 header of less than five words is malformed",
        |harness| {
            let mut frame = syn().bytes(false);
            frame[14] = 0x44;
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    ("IPv4 options are dropped", |harness| {
        for ihl in [0x46, 0x4f] {
            let mut frame = syn().bytes(false);
            frame[14] = ihl;
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Ipv4Options);
        }
    }),
    (
        "a total length below the header length is malformed",
        |harness| {
            let mut frame = syn().bytes(false);
            (frame[16], frame[17]) = (0, 19);
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "a total length that cuts the TCP header is malformed",
        |harness| {
            let mut frame = syn().bytes(false);
            (frame[16], frame[17]) = (0, 39);
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "a TCP data offset below five words is malformed",
        |harness| {
            for header_words in [0, 1, 4] {
                let mut frame = syn().bytes(false);
                frame[46] = header_words << 4;
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::Malformed);
            }
        },
    ),
    (
        "a TCP data offset beyond the segment is malformed",
        |harness| {
            let mut frame = syn().bytes(false);
            frame[46] = 0xf0;
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    ("a UDP length beyond the packet is malformed", |harness| {
        let mut frame = udp(CLIENT_SOCKET, (ENDPOINT, DNS), b"question").bytes(false);
        (frame[38], frame[39]) = (0, 17);
        harness
            .send_bytes(Side::A, &frame)
            .expect_dropped(DropReason::Malformed);
    }),
    (
        "a UDP length below the header length is malformed",
        |harness| {
            for length in [0, 7] {
                let mut frame = udp(CLIENT_SOCKET, (ENDPOINT, DNS), b"question").bytes(false);
                (frame[38], frame[39]) = (0, length);
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::Malformed);
            }
        },
    ),
    (
        "DF and the reserved bit do not make a packet a fragment",
        |harness| {
            for bits in [0x0000, 0x4000, 0x8000, 0xc000] {
                let packet = syn().edit_ipv4(|ip| ip.fragment = bits);
                harness.reset();
                harness
                    .send(Side::A, &packet)
                    .expect_forwarded(Side::Provider);
            }
        },
    ),
    (
        "an unsupported protocol for an endpoint is dropped",
        |harness| {
            for protocol in [0, 2, 41, 47, 50, 58, 132, 255] {
                let transport = Transport::Other(protocol, vec![0; 20]);
                let packet = syn().edit_ipv4(|ip| *ip = Ipv4::new(CLIENT, ENDPOINT, transport));
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::ProtocolUnsupported);
            }
        },
    ),
    (
        "an unsupported protocol for the host passes if the network is not isolated",
        |harness| {
            let transport = Transport::Other(89, vec![0; 20]);
            let host = Ipv4Addr::new(10, 1, 0, 1);
            let packet = syn()
                .edit_ipv4(|ip| *ip = Ipv4::new(BACKENDS[0], host, transport))
                .with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &packet).expect_passed(&packet);
        },
    ),
];

#[test]
fn frames_are_classified() {
    run_cases(CASES);
}
