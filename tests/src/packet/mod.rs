//! Packets: built from words, and read back. Independent of the data path's own code, checksums
//! included, so that the two can't share a mistake.

pub mod builders;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A station's hardware address.
pub type Mac = [u8; 6];

/// An address and a port.
pub type Socket = (Ipv4Addr, u16);

/// TCP flags.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Synchronize.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// Acknowledgement.
    pub const ACK: u8 = 16;
}

/// What a frame says, as far as these tests care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// To which station.
    pub to: Mac,
    /// From which one.
    pub from: Mac,
    /// What is in it.
    pub content: Content,
}

/// What is in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ARP for IPv4.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6.
    Ipv6(Ipv6),
    /// Something else: EtherType and bytes.
    Other(u16, Vec<u8>),
}

/// An ARP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who sends.
    pub sender: (Mac, Ipv4Addr),
    /// Who is meant.
    pub target: (Mac, Ipv4Addr),
}

/// An IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub transport: Transport,
}

/// An IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Hops it may go yet.
    pub hop_limit: u8,
    /// Source.
    pub source: Ipv6Addr,
    /// Destination.
    pub destination: Ipv6Addr,
    /// Extension headers: the number of each, and its bytes, the first of which is overwritten.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What it carries.
    pub transport: Transport,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP: type, code, and what follows the checksum.
    Icmp(u8, u8, Vec<u8>),
    /// Something else: protocol and bytes.
    Other(u8, Vec<u8>),
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Whether there is a checksum.
    pub checksummed: bool,
    /// Data.
    pub payload: Vec<u8>,
}

/// The sum of RFC 1071 over bytes, going on from `sum`, not folded.
fn add_to_checksum(bytes: &[u8], sum: u64) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

fn fold_checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn length_u16(length: usize) -> u16 {
    u16::try_from(length).expect("a packet that is no longer than packets are")
}

/// As much of a packet's payload as the UDP header says is the datagram's: that is what its checksum
/// covers.
fn datagram(body: &[u8]) -> &[u8] {
    let stated = body.get(4..6).map_or(0, |length| {
        usize::from(u16::from_be_bytes([length[0], length[1]]))
    });
    body.get(..stated).unwrap_or(body)
}

impl Ipv4 {
    /// An empty packet between two addresses.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, transport: Transport) -> Self {
        Self {
            tos: 0,
            id: 0x1234,
            fragment: 0x4000,
            ttl: 64,
            source,
            destination,
            transport,
        }
    }

    fn pseudo_header_sum(&self, protocol: u8, length: usize) -> u64 {
        let start = add_to_checksum(&self.source.octets(), u64::from(protocol));
        add_to_checksum(&self.destination.octets(), start) + u64::from(length_u16(length))
    }

    /// Its bytes. With `offloaded`, TCP's and UDP's checksum fields hold the pseudo header's sum
    /// only, as a sender leaves them that believes in checksumming hardware.
    #[must_use]
    pub fn bytes(&self, offloaded: bool) -> Vec<u8> {
        let (protocol, mut body, checksum_at) = match &self.transport {
            Transport::Tcp(tcp) => (6, tcp.bytes(), Some(16)),
            Transport::Udp(udp) => (17, udp.bytes(), udp.checksummed.then_some(6)),
            Transport::Icmp(kind, code, rest) => {
                let mut body = vec![*kind, *code, 0, 0];
                body.extend(rest);
                (1, body, Some(2))
            }
            Transport::Other(protocol, body) => (*protocol, body.clone(), None),
        };
        if let Some(at) = checksum_at {
            let pseudo = if protocol == 1 {
                0
            } else {
                self.pseudo_header_sum(protocol, body.len())
            };
            let mut value = if offloaded {
                fold_checksum(pseudo)
            } else {
                !fold_checksum(add_to_checksum(&body, pseudo))
            };
            if protocol == 17 && value == 0 {
                value = 0xffff;
            }
            body[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
        let mut bytes = vec![0x45, self.tos];
        bytes.extend(length_u16(20 + body.len()).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        let checksum = !fold_checksum(add_to_checksum(&bytes, 0));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads it, and checks every checksum in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 20 || bytes[0] != 0x45 {
            return Err(format!(
                "no plain IPv4 header: {:02x?}",
                &bytes[..bytes.len().min(20)]
            ));
        }
        if fold_checksum(add_to_checksum(&bytes[..20], 0)) != 0xffff {
            return Err("the IPv4 header's checksum is wrong".to_owned());
        }
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let body = bytes
            .get(20..length)
            .ok_or("the total length is beyond the frame")?;
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let mut packet = Self {
            tos: bytes[1],
            id: u16::from_be_bytes([bytes[4], bytes[5]]),
            fragment: u16::from_be_bytes([bytes[6], bytes[7]]),
            ttl: bytes[8],
            source: address(12),
            destination: address(16),
            transport: Transport::Other(bytes[9], body.to_vec()),
        };
        if packet.fragment & 0x3fff != 0 {
            return Ok(packet);
        }
        packet.transport = match bytes[9] {
            6 => {
                if fold_checksum(add_to_checksum(
                    body,
                    packet.pseudo_header_sum(6, body.len()),
                )) != 0xffff
                {
                    return Err("the TCP checksum is wrong".to_owned());
                }
                Transport::Tcp(Tcp::parse(body).ok_or("the TCP header is broken")?)
            }
            17 => {
                let udp = Udp::parse(body).ok_or("the UDP header is broken")?;
                let datagram = datagram(body);
                if udp.checksummed
                    && fold_checksum(add_to_checksum(
                        datagram,
                        packet.pseudo_header_sum(17, datagram.len()),
                    )) != 0xffff
                {
                    return Err("the UDP checksum is wrong".to_owned());
                }
                Transport::Udp(udp)
            }
            1 if body.len() >= 4 => {
                if fold_checksum(add_to_checksum(body, 0)) != 0xffff {
                    return Err("the ICMP checksum is wrong".to_owned());
                }
                Transport::Icmp(body[0], body[1], body[4..].to_vec())
            }
            _ => packet.transport,
        };
        Ok(packet)
    }
}

impl Ipv6 {
    /// A packet between two addresses, without extension headers.
    #[must_use]
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, transport: Transport) -> Self {
        Self {
            hop_limit: 64,
            source,
            destination,
            extensions: Vec::new(),
            transport,
        }
    }

    fn pseudo_header_sum(&self, protocol: u8, length: usize) -> u64 {
        let start = add_to_checksum(&self.source.octets(), u64::from(protocol));
        add_to_checksum(&self.destination.octets(), start) + u64::from(length_u16(length))
    }

    /// Its bytes; see [`Ipv4::bytes`] for `offloaded`.
    #[must_use]
    pub fn bytes(&self, offloaded: bool) -> Vec<u8> {
        let (protocol, mut body, checksum_at) = match &self.transport {
            Transport::Tcp(tcp) => (6, tcp.bytes(), Some(16)),
            Transport::Udp(udp) => (17, udp.bytes(), udp.checksummed.then_some(6)),
            Transport::Icmp(kind, code, rest) => {
                let mut body = vec![*kind, *code, 0, 0];
                body.extend(rest);
                (58, body, Some(2))
            }
            Transport::Other(protocol, body) => (*protocol, body.clone(), None),
        };
        if let Some(at) = checksum_at {
            let pseudo = self.pseudo_header_sum(protocol, body.len());
            let mut value = if offloaded {
                fold_checksum(pseudo)
            } else {
                !fold_checksum(add_to_checksum(&body, pseudo))
            };
            if protocol == 17 && value == 0 {
                value = 0xffff;
            }
            body[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
        let mut next = protocol;
        for (number, bytes) in self.extensions.iter().rev() {
            let mut extension = bytes.clone();
            extension[0] = next;
            next = *number;
            extension.extend(body);
            body = extension;
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length_u16(body.len()).to_be_bytes());
        bytes.extend([next, self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(body);
        bytes
    }

    /// Reads it, and checks every checksum in it; extension headers are not walked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 40 || bytes[0] >> 4 != 6 {
            return Err(format!(
                "no IPv6 header: {:02x?}",
                &bytes[..bytes.len().min(40)]
            ));
        }
        let length = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let body = bytes
            .get(40..length)
            .ok_or("the payload length is beyond the frame")?;
        let address = |at: usize| -> Ipv6Addr {
            let octets: [u8; 16] = std::array::from_fn(|index| bytes[at + index]);
            octets.into()
        };
        let mut packet = Self {
            hop_limit: bytes[7],
            source: address(8),
            destination: address(24),
            extensions: Vec::new(),
            transport: Transport::Other(bytes[6], body.to_vec()),
        };
        let whole = |protocol| {
            let body = if protocol == 17 { datagram(body) } else { body };
            fold_checksum(add_to_checksum(
                body,
                packet.pseudo_header_sum(protocol, body.len()),
            )) == 0xffff
        };
        packet.transport = match bytes[6] {
            6 if !whole(6) => return Err("the TCP checksum is wrong".to_owned()),
            17 if !whole(17) => return Err("the UDP checksum is wrong".to_owned()),
            58 if !whole(58) => return Err("the ICMPv6 checksum is wrong".to_owned()),
            6 => Transport::Tcp(Tcp::parse(body).ok_or("the TCP header is broken")?),
            17 => Transport::Udp(Udp::parse(body).ok_or("the UDP header is broken")?),
            58 if body.len() >= 4 => Transport::Icmp(body[0], body[1], body[4..].to_vec()),
            _ => packet.transport,
        };
        Ok(packet)
    }
}

impl Tcp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        let words = u8::try_from(5 + self.options.len() / 4).expect("few options");
        bytes.extend([words << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..20)?;
        let header = usize::from(fixed[12] >> 4) * 4;
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        Some(Self {
            source: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination: u16::from_be_bytes([fixed[2], fixed[3]]),
            sequence: word(4),
            acknowledgement: word(8),
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            options: bytes.get(20..header)?.to_vec(),
            payload: bytes.get(header..)?.to_vec(),
        })
    }
}

impl Udp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(length_u16(8 + self.payload.len()).to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.payload);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..8)?;
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        Some(Self {
            source: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination: u16::from_be_bytes([fixed[2], fixed[3]]),
            checksummed: fixed[6..8] != [0, 0],
            payload: bytes.get(8..length)?.to_vec(),
        })
    }
}

impl Packet {
    /// Its bytes; see [`Ipv4::bytes`] for `offloaded`.
    #[must_use]
    pub fn bytes(&self, offloaded: bool) -> Vec<u8> {
        let (ether_type, body) = match &self.content {
            Content::Arp(arp) => {
                let mut body = vec![0, 1, 8, 0, 6, 4];
                body.extend(arp.operation.to_be_bytes());
                for (mac, address) in [arp.sender, arp.target] {
                    body.extend(mac);
                    body.extend(address.octets());
                }
                (0x0806, body)
            }
            Content::Ipv4(ipv4) => (0x0800, ipv4.bytes(offloaded)),
            Content::Ipv6(ipv6) => (0x86dd, ipv6.bytes(offloaded)),
            Content::Other(ether_type, body) => (*ether_type, body.clone()),
        };
        let mut bytes = Vec::new();
        bytes.extend(self.to);
        bytes.extend(self.from);
        bytes.extend(u16::to_be_bytes(ether_type));
        bytes.extend(body);
        bytes
    }

    /// Reads a frame, and checks every checksum in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let head = bytes.get(..14).ok_or("no Ethernet header")?;
        let mac = |at: usize| -> Mac { std::array::from_fn(|index| head[at + index]) };
        let ether_type = u16::from_be_bytes([head[12], head[13]]);
        let body = &bytes[14..];
        let content = match ether_type {
            0x0800 => Content::Ipv4(Ipv4::parse(body)?),
            0x86dd => Content::Ipv6(Ipv6::parse(body)?),
            0x0806 if body.len() >= 28 => {
                let mac = |at: usize| -> Mac { std::array::from_fn(|index| body[at + index]) };
                let address =
                    |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
                Content::Arp(Arp {
                    operation: u16::from_be_bytes([body[6], body[7]]),
                    sender: (mac(8), address(14)),
                    target: (mac(18), address(24)),
                })
            }
            other => Content::Other(other, body.to_vec()),
        };
        Ok(Self {
            to: mac(0),
            from: mac(6),
            content,
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        writeln!(f, "  {} > {}", mac(self.from), mac(self.to))?;
        match &self.content {
            Content::Ipv4(ipv4) => {
                writeln!(
                    f,
                    "  {} > {} ttl {} id {:#06x} fragment {:#06x}",
                    ipv4.source, ipv4.destination, ipv4.ttl, ipv4.id, ipv4.fragment
                )?;
                write!(f, "  {:?}", ipv4.transport)
            }
            other => write!(f, "  {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram without a checksum, byte by byte.
    #[test]
    fn packets_round_trip_through_bytes() {
        let bytes: Vec<u8> = [
            "02000000000a",
            "02000000000b",
            "0800",
            "4500002c",
            "b1e6",
            "0000",
            "40",
            "11",
            "0000",
            "0a000005",
            "0a000064",
            "d431",
            "0035",
            "0018",
            "0000",
            "00010203040506070809101112131415",
        ]
        .concat()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
        let mut bytes = bytes;
        let checksum = !fold_checksum(add_to_checksum(&bytes[14..34], 0));
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.bytes(false), bytes);
        bytes[44] ^= 1;
        assert!(Packet::parse(&bytes).is_ok(), "no checksum, no complaint");
        bytes[30] ^= 1;
        assert!(
            Packet::parse(&bytes)
                .unwrap_err()
                .contains("IPv4 header's checksum")
        );
    }

    #[test]
    fn wrong_checksums_are_rejected() {
        let tcp = Tcp {
            source: 1,
            destination: 2,
            sequence: 3,
            acknowledgement: 4,
            flags: flag::ACK,
            window: 5,
            options: vec![1, 1, 1, 1],
            payload: b"odd".to_vec(),
        };
        let ipv4 = Ipv4::new(
            [10, 0, 0, 5].into(),
            [10, 0, 0, 100].into(),
            Transport::Tcp(tcp),
        );
        let mut bytes = ipv4.bytes(false);
        assert_eq!(Ipv4::parse(&bytes).unwrap(), ipv4);
        bytes[43] ^= 4;
        assert!(Ipv4::parse(&bytes).unwrap_err().contains("TCP checksum"));
        assert!(Ipv4::parse(&ipv4.bytes(true)).is_err());
    }
}
