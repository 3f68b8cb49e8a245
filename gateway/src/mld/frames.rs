//! Frames of MLD messages. Pure.

use std::net::Ipv6Addr;

use gateway_common::packet::Mac;

use crate::mld::{MldMessage, RecordKind};

/// IP protocol number of ICMPv6.
pub(super) const ICMPV6: u8 = 58;
/// Offset of the message in a frame: behind Ethernet, IPv6 and the hop-by-hop options header.
pub(super) const MESSAGE_OFFSET: usize = 14 + 40 + 8;
const REPORT_V1: u8 = 131;
const DONE_V1: u8 = 132;
const REPORT_V2: u8 = 143;
/// All MLDv2-capable routers: the destination of reports of MLDv2 (RFC 3810, section 5.2.14).
const MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// All routers: the destination of done messages (RFC 2710, section 3).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Hop-by-hop options header with the option Router Alert for MLD, and padding (RFC 2711).
const HOP_BY_HOP_OPTIONS: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];

impl MldMessage {
    /// Returns the frame of the message. `source` is a link-local address, or the unspecified one (RFC 3590).
    #[must_use]
    pub fn frame(&self, from: Mac, source: Ipv6Addr) -> Vec<u8> {
        let (destination, mut message) = match self {
            Self::ReportV2(records) => (MLDV2_ROUTERS, report_v2(records)),
            Self::ReportV1(group) => (*group, message_v1(REPORT_V1, *group)),
            Self::DoneV1(group) => (ALL_ROUTERS, message_v1(DONE_V1, *group)),
        };
        let sum = checksum(source, destination, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let [.., a, b, c, d] = destination.octets();
        let mut frame = vec![0x33, 0x33, a, b, c, d];
        frame.extend(from.bytes());
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        let length = u16::try_from(HOP_BY_HOP_OPTIONS.len() + message.len()).unwrap_or(0);
        frame.extend(length.to_be_bytes());
        // The next header is the hop-by-hop options header, and the hop limit is 1.
        frame.extend([0, 1]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(HOP_BY_HOP_OPTIONS);
        frame.extend(message);
        frame
    }
}

fn message_v1(kind: u8, group: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(group.octets());
    message
}

fn report_v2(records: &[(RecordKind, Ipv6Addr)]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
    let mut message = vec![REPORT_V2, 0, 0, 0, 0, 0];
    message.extend(count.to_be_bytes());
    for (kind, group) in records {
        message.extend([*kind as u8, 0, 0, 0]);
        message.extend(group.octets());
    }
    message
}

/// Returns the checksum of an ICMPv6 message (RFC 4443, section 2.3). Over a message with its checksum it is zero.
pub(super) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(40 + message.len());
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, ICMPV6]);
    bytes.extend(message);
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u64 = words.map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the sum was folded to 16 bits"
    )]
    let sum = sum as u16;
    !sum
}
