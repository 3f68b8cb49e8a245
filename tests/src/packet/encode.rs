//! Packets as bytes, with their checksums.

use super::checksum::*;
use super::*;

pub(super) fn length_u16(length: usize) -> u16 {
    u16::try_from(length).expect("at most 65,535 bytes")
}

impl Ipv4 {
    pub(super) fn pseudo_header_sum(&self, protocol: u8, length: usize) -> u64 {
        let start = add_to_checksum(&self.source.octets(), u64::from(protocol));
        add_to_checksum(&self.destination.octets(), start) + u64::from(length_u16(length))
    }

    /// Returns the packet's bytes. With `offloaded`, TCP and UDP checksum fields hold the sum of the pseudo header
    /// only, as a sender with checksum offload leaves them.
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
}

impl Ipv6 {
    pub(super) fn pseudo_header_sum(&self, protocol: u8, length: usize) -> u64 {
        let start = add_to_checksum(&self.source.octets(), u64::from(protocol));
        add_to_checksum(&self.destination.octets(), start) + u64::from(length_u16(length))
    }

    /// Returns the packet's bytes. [`Ipv4::bytes`] describes `offloaded`.
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
}

impl Tcp {
    pub(super) fn bytes(&self) -> Vec<u8> {
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
}

impl Udp {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(length_u16(8 + self.payload.len()).to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.payload);
        bytes
    }
}

impl Packet {
    /// Returns the packet's bytes. [`Ipv4::bytes`] describes `offloaded`.
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
}
