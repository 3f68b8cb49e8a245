//! Validation of neighbour discovery messages (RFC 4861, sections 7.1.1 and 7.1.2).

use super::*;
use crate::Case;
use gateway_common::{DropReason, Verdict};
use std::net::Ipv6Addr;
use tests::{
    datapath::differential::{
        CLIENT_MAC, CLIENT_V6, DifferentialHarness, ENDPOINT_V6, Side, icmp_v6,
        neighbour_solicitation,
    },
    packet::{Content, Packet, Transport},
};

const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// Option: the link-layer address of the sender.
const SOURCE: [u8; 8] = [1, 1, 2, 0, 0, 0, 1, 5];
/// Option: the link-layer address of the target.
const TARGET: [u8; 8] = [2, 1, 2, 0, 0, 0, 1, 5];
/// Option: a nonce (RFC 3971), which any message may have.
const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

/// Returns a solicitation for the endpoint with these options.
fn solicitation(source: Ipv6Addr, options: &[u8]) -> Packet {
    with_options(neighbour_solicitation(ENDPOINT_V6, source), options)
}

/// Returns an advertisement of the endpoint's address to all nodes, with these options.
fn advertisement(flags: u8, options: &[u8]) -> Packet {
    let rest = [&[flags, 0, 0, 0], &ENDPOINT_V6.octets()[..]].concat();
    let mut packet = icmp_v6(CLIENT_V6, ALL_NODES, 136, &rest).edit_ipv6(|ip| ip.hop_limit = 255);
    packet.to = [0x33, 0x33, 0, 0, 0, 1];
    with_options(packet, options)
}

/// Replaces the options of a message.
fn with_options(packet: Packet, options: &[u8]) -> Packet {
    edit_message(packet, |message| {
        message.truncate(20);
        message.extend(options);
    })
}

/// Changes the part of a message behind its checksum.
fn edit_message(packet: Packet, edit: impl FnOnce(&mut Vec<u8>)) -> Packet {
    packet.edit_ipv6(|ip| match &mut ip.transport {
        Transport::Icmp(_, _, message) => edit(message),
        _ => panic!("no ICMP"),
    })
}

fn with_code(packet: Packet, new_code: u8) -> Packet {
    packet.edit_ipv6(|ip| {
        if let Transport::Icmp(_, code, _) = &mut ip.transport {
            *code = new_code;
        }
    })
}

/// Sends a message that must be discarded, and have no effect.
#[track_caller]
fn expect_discarded(harness: &mut DifferentialHarness, packet: &Packet) {
    harness
        .send(Side::A, packet)
        .expect_dropped(DropReason::NeighbourMessageInvalid);
    assert_eq!(harness.conflicts(), [], "{packet}");
    // The provider's network is not isolated, and the address is not local there: the host judges for itself.
    let mut elsewhere = packet.clone();
    if elsewhere.to == Side::A.mac() {
        elsewhere = elsewhere.sent_to(Side::Provider);
    }
    harness
        .send(Side::Provider, &elsewhere)
        .expect_passed(&elsewhere);
}

/// A fault of a message, and the change that causes it.
type Fault = (&'static str, fn(Packet) -> Packet);

/// Faults of both kinds of message.
const INVALID: &[Fault] = &[
    ("a hop limit below 255", |packet| {
        packet.edit_ipv6(|ip| ip.hop_limit = 254)
    }),
    ("a code other than 0", |packet| with_code(packet, 1)),
    ("a length below 24", |packet| {
        edit_message(packet, |message| message.truncate(19))
    }),
    ("a length of the ICMP header only", |packet| {
        edit_message(packet, |message| message.truncate(4))
    }),
    ("a multicast target", |packet| {
        edit_message(packet, |message| message[4] = 0xff)
    }),
    ("an option of length 0", |packet| {
        with_options(packet, &[14, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("an option of length 0 behind another", |packet| {
        with_options(packet, &[NONCE, [3, 0, 0, 0, 0, 0, 0, 0]].concat())
    }),
    ("an option that exceeds the message", |packet| {
        with_options(packet, &[14, 2, 0, 0, 0, 0, 0, 0])
    }),
    ("half an option", |packet| with_options(packet, &NONCE[..4])),
    ("one byte of an option", |packet| {
        with_options(packet, &NONCE[..1])
    }),
    ("more options than are parsed", |packet| {
        with_options(packet, &NONCE.repeat(9))
    }),
];

pub(super) const CASES: &[Case] = &[
    (
        "an invalid solicitation or advertisement is discarded",
        |harness| {
            for (what, change) in INVALID {
                println!("{what}");
                for packet in [
                    solicitation(CLIENT_V6, &SOURCE),
                    solicitation(UNSPECIFIED, &[]),
                    advertisement(0x20, &TARGET),
                ] {
                    expect_discarded(harness, &change(packet));
                }
            }
        },
    ),
    (
        "an invalid message to the gateway's MAC address is discarded too",
        |harness| {
            for (what, change) in INVALID {
                println!("{what}");
                let packet = solicitation(CLIENT_V6, &SOURCE).sent_to(Side::A);
                let packet = change(packet.edit_ipv6(|ip| ip.destination = ENDPOINT_V6));
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::NeighbourMessageInvalid);
            }
        },
    ),
    (
        "a solicitation with a source option of another length is discarded",
        |harness| {
            let long = [&[1, 2][..], &[0; 14]].concat();
            expect_discarded(harness, &solicitation(CLIENT_V6, &long));
            // In an advertisement the option has no meaning.
            harness
                .send(Side::A, &advertisement(0x20, &long))
                .expect_dropped(DropReason::AddressConflict);
        },
    ),
    (
        "an advertisement with a target option of another length is discarded",
        |harness| {
            let long = [&[2, 2][..], &[0; 14]].concat();
            expect_discarded(harness, &advertisement(0x20, &long));
            harness
                .send(Side::A, &solicitation(CLIENT_V6, &long))
                .expect_reply();
        },
    ),
    (
        "a probe with a source option is discarded, with another option it is answered",
        |harness| {
            expect_discarded(harness, &solicitation(UNSPECIFIED, &SOURCE));
            let later = [NONCE, SOURCE].concat();
            expect_discarded(harness, &solicitation(UNSPECIFIED, &later));
            for options in [&[][..], &NONCE, &TARGET] {
                harness
                    .send(Side::A, &solicitation(UNSPECIFIED, options))
                    .expect_reply();
            }
        },
    ),
    (
        "a probe to another address than a solicited-node one is discarded",
        |harness| {
            for destination in [
                "fd00::100",
                "ff02::1",
                "ff02::1:fe00:100",
                "ff05::1:ff00:100",
            ] {
                let destination = destination.parse().expect("an address");
                let probe = solicitation(UNSPECIFIED, &[]);
                let probe = probe.edit_ipv6(|ip| ip.destination = destination);
                expect_discarded(harness, &probe.clone().sent_to(Side::A));
                expect_discarded(harness, &probe);
            }
        },
    ),
    (
        "a solicited advertisement to a multicast address is discarded",
        |harness| {
            for flags in [0x40, 0x60, 0xe0] {
                expect_discarded(harness, &advertisement(flags, &TARGET));
            }
            for flags in [0, 0x20, 0xa0] {
                harness.reset();
                harness
                    .send(Side::A, &advertisement(flags, &TARGET))
                    .expect_dropped(DropReason::AddressConflict);
            }
            let unicast = advertisement(0x60, &TARGET).sent_to(Side::A);
            let unicast = unicast.edit_ipv6(|ip| ip.destination = ENDPOINT_V6);
            harness
                .send(Side::A, &unicast)
                .expect_dropped(DropReason::AddressConflict);
        },
    ),
    ("a message with a wrong checksum is discarded", |harness| {
        for packet in [
            solicitation(CLIENT_V6, &SOURCE),
            solicitation(UNSPECIFIED, &[]),
            advertisement(0x20, &TARGET),
        ] {
            // The checksum, the flags, the last byte.
            for at in [56, 58, packet.bytes(false).len() - 1] {
                let mut frame = packet.bytes(false);
                frame[at] ^= 1;
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::ChecksumWrong);
                let result = harness.send_bytes(Side::Provider, &frame);
                assert_eq!((result.verdict, result.frame), (Verdict::Pass, frame));
            }
        }
        assert_eq!(harness.conflicts(), []);
    }),
    (
        "a message of less than 24 bytes is discarded, whatever follows it in the frame",
        |harness| {
            for length in [4, 12, 19] {
                let packet = solicitation(CLIENT_V6, &[]);
                let mut frame =
                    edit_message(packet, |message| message.truncate(length)).bytes(false);
                frame.extend([0xfd; 20]);
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::NeighbourMessageInvalid);
            }
        },
    ),
    ("bytes behind the message are no options", |harness| {
        let mut frame = solicitation(CLIENT_V6, &SOURCE).bytes(false);
        frame.extend([0; 20]);
        let result = harness.send_bytes(Side::A, &frame);
        assert_eq!(result.expect_reply().to, CLIENT_MAC);
    }),
    (
        "an invalid message about a tentative address is no conflict",
        |harness| {
            harness.mark_tentative("a/net", ENDPOINT_V6.into());
            for packet in [
                solicitation(UNSPECIFIED, &SOURCE),
                advertisement(0x60, &TARGET),
            ] {
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::NeighbourMessageInvalid);
            }
            assert_eq!(harness.conflicts(), []);
        },
    ),
    ("as many options as are parsed are allowed", |harness| {
        let answer = harness
            .send(Side::A, &solicitation(CLIENT_V6, &NONCE.repeat(8)))
            .expect_reply();
        assert!(matches!(answer.content, Content::Ipv6(_)), "{answer}");
    }),
];
