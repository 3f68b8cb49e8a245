//! The parser of packets. It verifies every checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::*;
use super::*;

/// Returns the bytes that the UDP checksum covers: the payload up to the length in the UDP header.
fn datagram(body: &[u8]) -> &[u8] {
    let stated = body.get(4..6).map_or(0, |length| {
        usize::from(u16::from_be_bytes([length[0], length[1]]))
    });
    body.get(..stated).unwrap_or(body)
}

impl Ipv4 {
    /// Parses a packet and verifies every checksum in it.
    ///
    /// # Errors
    /// Returns what is wrong with the packet.
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
    /// Parses a packet and verifies every checksum in it. Extension headers are not walked.
    ///
    /// # Errors
    /// Returns what is wrong with the packet.
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
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
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
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
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
    /// Parses a frame and verifies every checksum in it.
    ///
    /// # Errors
    /// Returns what is wrong with the packet.
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
