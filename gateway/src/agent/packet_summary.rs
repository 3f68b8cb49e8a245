//! Summaries of logged packets: addresses, ports and protocol, for people. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gateway_common::{
    maps::{LOGGED_BYTES, LoggedPacket, LoggedVerdict},
    packet::{Mac, protocol},
};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;

/// Number of IPv6 extension headers that are skipped.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Summary of a packet that was dropped or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketSummary {
    /// `dropped` or `rejected`.
    pub(crate) outcome: &'static str,
    /// Source: an address, with a port if there is one, or a MAC address.
    pub(crate) source: String,
    /// Destination.
    pub(crate) destination: String,
    /// Protocol by name, or by number.
    pub(crate) protocol: String,
    /// Length of the frame. A rejected packet's is that of the answer to it.
    pub(crate) length: u32,
}

/// Returns the summary of a logged packet.
///
/// The frame of a rejected packet is the answer to it: the addresses of a TCP reset are exchanged, and an ICMP error
/// quotes the packet.
pub(crate) fn summarize(packet: &LoggedPacket) -> PacketSummary {
    let captured = (packet.captured_len as usize).min(LOGGED_BYTES);
    let frame = packet.bytes.get(..captured).unwrap_or_default();
    let is_reset = packet.verdict == LoggedVerdict::TcpReset as u32;
    let is_error = packet.verdict == LoggedVerdict::IcmpError as u32;
    let mut found = parse_frame(frame);
    if is_reset {
        std::mem::swap(&mut found.source, &mut found.destination);
    }
    if is_error && let Some(quoted) = quoted_packet(frame) {
        found = quoted.into();
    }
    PacketSummary {
        outcome: if is_reset || is_error {
            "rejected"
        } else {
            "dropped"
        },
        source: found.source,
        destination: found.destination,
        protocol: found.protocol,
        length: packet.frame_len,
    }
}

/// Source, destination and protocol, as shown.
struct Parties {
    source: String,
    destination: String,
    protocol: String,
}

/// An IP packet.
struct IpPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// L4 header and payload. `None` for a later fragment.
    payload: Option<&'a [u8]>,
}

impl From<IpPacket<'_>> for Parties {
    fn from(packet: IpPacket<'_>) -> Self {
        let has_ports = [protocol::TCP, protocol::UDP].contains(&packet.protocol);
        let ports = packet.payload.filter(|_| has_ports).and_then(|l4| {
            let source = u16_at(l4, 0)?;
            Some((source, u16_at(l4, 2)?))
        });
        let show = |address: IpAddr, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        Self {
            source: show(packet.source, ports.map(|(source, _)| source)),
            destination: show(
                packet.destination,
                ports.map(|(_, destination)| destination),
            ),
            protocol: match packet.protocol {
                protocol::ICMP => "icmp".to_owned(),
                protocol::TCP => "tcp".to_owned(),
                protocol::UDP => "udp".to_owned(),
                protocol::ICMPV6 => "icmpv6".to_owned(),
                other => other.to_string(),
            },
        }
    }
}

fn parse_frame(frame: &[u8]) -> Parties {
    let payload = frame.get(ETHERNET_LEN..).unwrap_or_default();
    let ether_type = u16_at(frame, 12);
    let known = match ether_type {
        Some(ETHERTYPE_IPV4) => parse_ipv4(payload).map(Parties::from),
        Some(ETHERTYPE_IPV6) => parse_ipv6(payload).map(Parties::from),
        Some(ETHERTYPE_ARP) => parse_arp(payload),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let mac = |at: usize| {
            let mac: Option<[u8; 6]> = frame.get(at..at + 6).and_then(|mac| mac.try_into().ok());
            mac.map_or_else(|| "-".to_owned(), |mac| Mac::new(mac).to_string())
        };
        let protocol = match ether_type {
            Some(ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) => match u16_at(payload, 0) {
                Some(tag) => format!("vlan-{}", tag & 0xfff),
                None => "vlan".to_owned(),
            },
            Some(ether_type) => format!("0x{ether_type:04x}"),
            None => "-".to_owned(),
        };
        Parties {
            source: mac(6),
            destination: mac(0),
            protocol,
        }
    })
}

/// Returns the packet that an ICMP error quotes.
fn quoted_packet(frame: &[u8]) -> Option<IpPacket<'_>> {
    let payload = frame.get(ETHERNET_LEN..)?;
    match u16_at(frame, 12)? {
        ETHERTYPE_IPV4 => parse_ipv4(parse_ipv4(payload)?.payload?.get(ICMP_LEN..)?),
        ETHERTYPE_IPV6 => parse_ipv6(parse_ipv6(payload)?.payload?.get(ICMP_LEN..)?),
        _ => None,
    }
}

fn parse_ipv4(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let header = bytes.get(..IPV4_LEN)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let is_later_fragment = u16_at(header, 6)? & 0x1fff != 0;
    Some(IpPacket {
        source: Ipv4Addr::from(array::<4>(header, 12)?).into(),
        destination: Ipv4Addr::from(array::<4>(header, 16)?).into(),
        protocol: header[9],
        payload: bytes
            .get(header_len.max(IPV4_LEN)..)
            .filter(|_| !is_later_fragment),
    })
}

fn parse_ipv6(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let header = bytes.get(..IPV6_LEN)?;
    let mut packet = IpPacket {
        source: Ipv6Addr::from(array::<16>(header, 8)?).into(),
        destination: Ipv6Addr::from(array::<16>(header, 24)?).into(),
        protocol: header[6],
        payload: bytes.get(IPV6_LEN..),
    };
    for _ in 0..MAX_EXTENSION_HEADERS {
        let Some(extension) = packet.payload else {
            break;
        };
        let header_len = match packet.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => extension
                .get(1)
                .map(|length| (usize::from(*length) + 1) * 8),
            protocol::FRAGMENT => {
                let is_later_fragment = u16_at(extension, 2).is_none_or(|word| word & !7 != 0);
                (!is_later_fragment).then_some(8)
            }
            _ => break,
        };
        packet.protocol = extension.first().copied().unwrap_or(packet.protocol);
        packet.payload = header_len.and_then(|header_len| extension.get(header_len..));
    }
    Some(packet)
}

fn parse_arp(bytes: &[u8]) -> Option<Parties> {
    Some(Parties {
        source: Ipv4Addr::from(array::<4>(bytes, 14)?).to_string(),
        destination: Ipv4Addr::from(array::<4>(bytes, 24)?).to_string(),
        protocol: "arp".to_owned(),
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(verdict: LoggedVerdict, frame: &[u8]) -> LoggedPacket {
        let captured = frame.len().min(LOGGED_BYTES);
        let mut bytes = [0; LOGGED_BYTES];
        bytes[..captured].copy_from_slice(&frame[..captured]);
        LoggedPacket {
            reason: 0,
            verdict: verdict as u32,
            connection_slot: 0,
            ifindex: 1,
            frame_len: u32::try_from(frame.len()).unwrap(),
            captured_len: u32::try_from(captured).unwrap(),
            bytes,
        }
    }

    fn shown(verdict: LoggedVerdict, frame: &[u8]) -> String {
        let summary = summarize(&logged(verdict, frame));
        format!(
            "{} {} {} {}",
            summary.outcome, summary.source, summary.destination, summary.protocol
        )
    }

    fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        [&macs[..], &ether_type.to_be_bytes(), payload].concat()
    }

    fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0];
        header.extend(fragment.to_be_bytes());
        header.extend([64, protocol, 0, 0, 10, 0, 0, 5, 10, 0, 0, 100]);
        [&header, payload].concat()
    }

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, next_header, 64];
        for last in [5, 100] {
            header.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        [&header, payload].concat()
    }

    const PORTS: [u8; 8] = [0x12, 0x34, 0, 80, 0, 0, 0, 0];

    #[test]
    fn addresses_and_ports_are_shown() {
        let frame = ethernet(ETHERTYPE_IPV4, &ipv4(6, 0, &PORTS));
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped 10.0.0.5:4660 10.0.0.100:80 tcp"
        );
        let frame = ethernet(ETHERTYPE_IPV4, &ipv4(17, 0x2001, &PORTS));
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped 10.0.0.5 10.0.0.100 udp"
        );
        let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &PORTS].concat();
        let frame = ethernet(ETHERTYPE_IPV6, &ipv6(60, &options));
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped [fd00::5]:4660 [fd00::64]:80 udp"
        );
        let frame = ethernet(ETHERTYPE_IPV6, &ipv6(132, &PORTS));
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped fd00::5 fd00::64 132"
        );
    }

    #[test]
    fn rejected_packet_is_shown_as_it_arrived() {
        let reset = ethernet(ETHERTYPE_IPV4, &ipv4(6, 0, &PORTS));
        assert_eq!(
            shown(LoggedVerdict::TcpReset, &reset),
            "rejected 10.0.0.100:80 10.0.0.5:4660 tcp"
        );
        let quoted = ipv6(17, &PORTS);
        let error = ipv6(58, &[&[1, 4, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
        let frame = ethernet(ETHERTYPE_IPV6, &error);
        assert_eq!(
            shown(LoggedVerdict::IcmpError, &frame),
            "rejected [fd00::5]:4660 [fd00::64]:80 udp"
        );
    }

    #[test]
    fn frames_without_ip_show_what_they_have() {
        let arp = [&[0; 14][..], &[10, 0, 0, 5], &[0; 6], &[10, 0, 0, 1]].concat();
        let frame = ethernet(ETHERTYPE_ARP, &arp);
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped 10.0.0.5 10.0.0.1 arp"
        );
        let frame = ethernet(ETHERTYPE_VLAN, &[0x60, 100, 8, 0]);
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped 02:00:00:00:00:02 02:00:00:00:00:01 vlan-100"
        );
        let frame = ethernet(0x88b5, &[]);
        assert_eq!(
            shown(LoggedVerdict::Drop, &frame),
            "dropped 02:00:00:00:00:02 02:00:00:00:00:01 0x88b5"
        );
        assert_eq!(shown(LoggedVerdict::Drop, &frame[..5]), "dropped - - -");
        // A cut header is shown by its MAC addresses.
        let frame = ethernet(ETHERTYPE_IPV4, &[0x45; 10]);
        assert!(shown(LoggedVerdict::Drop, &frame).ends_with("0x0800"));
    }
}
