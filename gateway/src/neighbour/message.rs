//! Messages of neighbours: validation of received ARP packets (RFC 826) and of neighbour solicitations and
//! advertisements (RFC 4861, sections 7.1.1 and 7.1.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::packet::Mac;

/// Kind of a message, as far as it matters to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// ARP reply to this host.
    ArpReply,
    /// ARP packet that announces its sender, or asks for another host.
    Announcement,
    /// Neighbour solicitation with the MAC address of its sender.
    Solicitation,
    /// Neighbour advertisement, with its flags Solicited and Override.
    Advertisement {
        /// True if it answers a solicitation.
        solicited: bool,
        /// True if its MAC address replaces another one.
        overrides: bool,
    },
}

/// Message that says something about the MAC address of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourMessage {
    /// Address of the neighbour.
    pub address: IpAddr,
    /// MAC address of the neighbour, if the message has one.
    pub mac: Option<Mac>,
    /// Kind of the message.
    pub kind: MessageKind,
}

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// Length of a solicitation or advertisement without options.
const NDP_LEN: usize = 24;
const ICMPV6: u8 = 58;
const NDP_HOP_LIMIT: u8 = 255;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const SOLICITED_FLAG: u8 = 0x40;
const OVERRIDE_FLAG: u8 = 0x20;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Parses a frame with an ARP packet. Returns `None` if the packet is invalid, or if it is a probe, which says nothing
/// of its sender (RFC 5227, section 1.1).
#[must_use]
pub fn parse_arp(frame: &[u8]) -> Option<NeighbourMessage> {
    let destination: [u8; 6] = array(frame, 0)?;
    if array(frame, ETHERNET_LEN)? != ARP_ETHERNET_IPV4 {
        return None;
    }
    let operation = u16::from_be_bytes(array(frame, 20)?);
    let mac = Mac::new(array(frame, 22)?);
    let sender = Ipv4Addr::from(array::<4>(frame, 28)?);
    let target = Ipv4Addr::from(array::<4>(frame, 38)?);
    if sender.is_unspecified() || sender.is_multicast() || sender.is_broadcast() {
        return None;
    }
    let kind = match operation {
        ARP_REPLY if sender != target && !Mac::new(destination).is_multicast() => {
            MessageKind::ArpReply
        }
        ARP_REQUEST | ARP_REPLY => MessageKind::Announcement,
        _ => return None,
    };
    Some(NeighbourMessage {
        address: sender.into(),
        mac: Some(mac),
        kind,
    })
}

/// Parses a frame with a neighbour solicitation or advertisement. Returns `None` if the message is invalid, or says
/// nothing of its sender.
#[must_use]
pub fn parse_neighbour_discovery(frame: &[u8]) -> Option<NeighbourMessage> {
    let ipv6 = frame.get(ETHERNET_LEN..)?;
    let [version, ..] = array::<1>(ipv6, 0)?;
    let payload_len = usize::from(u16::from_be_bytes(array(ipv6, 4)?));
    let [next_header, hop_limit] = array(ipv6, 6)?;
    let source = Ipv6Addr::from(array::<16>(ipv6, 8)?);
    let destination = Ipv6Addr::from(array::<16>(ipv6, 24)?);
    // The frame may be longer than the packet: Ethernet pads short frames.
    let message = ipv6.get(IPV6_LEN..IPV6_LEN + payload_len)?;
    let is_valid = version >> 4 == 6
        && next_header == ICMPV6
        && hop_limit == NDP_HOP_LIMIT
        && message.len() >= NDP_LEN
        && checksum(source, destination, message) == 0;
    if !is_valid {
        return None;
    }
    let [kind, code] = array(message, 0)?;
    let [flags] = array(message, 4)?;
    let target = Ipv6Addr::from(array::<16>(message, 8)?);
    let options = parse_options(message.get(NDP_LEN..)?)?;
    if code != 0 || target.is_multicast() || source.is_multicast() {
        return None;
    }
    match kind {
        // From the unspecified address it is duplicate address detection (RFC 4862), which claims nothing yet.
        NEIGHBOUR_SOLICITATION if !source.is_unspecified() => {
            let mac = options.source?;
            Some(NeighbourMessage {
                address: source.into(),
                mac: Some(mac),
                kind: MessageKind::Solicitation,
            })
        }
        NEIGHBOUR_ADVERTISEMENT => {
            let solicited = flags & SOLICITED_FLAG != 0;
            if solicited && destination.is_multicast() {
                return None;
            }
            Some(NeighbourMessage {
                address: target.into(),
                mac: options.target,
                kind: MessageKind::Advertisement {
                    solicited,
                    overrides: flags & OVERRIDE_FLAG != 0,
                },
            })
        }
        _ => None,
    }
}

/// Link-layer addresses among the options of a message.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    source: Option<Mac>,
    target: Option<Mac>,
}

/// Parses options. Returns `None` if one of them has the length 0, or exceeds the message.
fn parse_options(mut bytes: &[u8]) -> Option<Options> {
    let mut options = Options::default();
    while !bytes.is_empty() {
        let [kind, units] = array(bytes, 0)?;
        let length = usize::from(units) * 8;
        if length == 0 {
            return None;
        }
        let option = bytes.get(..length)?;
        bytes = bytes.get(length..)?;
        let mac = (length == 8).then(|| array(option, 2)).flatten();
        match kind {
            SOURCE_LINK_LAYER_ADDRESS => options.source = options.source.or(mac.map(Mac::new)),
            TARGET_LINK_LAYER_ADDRESS => options.target = options.target.or(mac.map(Mac::new)),
            _ => {}
        }
    }
    Some(options)
}

/// Returns the checksum of an ICMPv6 message with its pseudo header, which is 0 if the message carries the correct one
/// (RFC 4443, section 2.3).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo_header = [
        &source.octets()[..],
        &destination.octets(),
        &length.to_be_bytes(),
        &[0, 0, 0, ICMPV6],
    ];
    let sum: u64 = pseudo_header.into_iter().chain([message]).map(sum).sum();
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    !u16::try_from(folded).unwrap_or(0)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(u16::from_be_bytes([*high, 0])),
            _ => 0,
        })
        .sum()
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
