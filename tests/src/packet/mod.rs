//! A packet library for tests: builders, an encoder and a parser that verifies checksums.
//!
//! The library shares no code with the data path, checksums included, so that the two can't share a mistake.

pub mod addresses;
pub mod builders;
mod checksum;
mod display;
mod encode;
pub mod fragments;
mod parse;
pub mod read;

use std::net::{Ipv4Addr, Ipv6Addr};

/// A MAC address.
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

/// An Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination MAC address.
    pub to: Mac,
    /// Source MAC address.
    pub from: Mac,
    /// Payload.
    pub content: Content,
}

/// The payload of an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ARP for IPv4.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6.
    Ipv6(Ipv6),
    /// Any other EtherType, with its bytes.
    Other(u16, Vec<u8>),
}

/// An ARP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 for a request, 2 for a reply.
    pub operation: u16,
    /// MAC and IP address of the sender.
    pub sender: (Mac, Ipv4Addr),
    /// MAC and IP address of the target.
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
    /// L4 packet.
    pub transport: Transport,
}

/// An IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub source: Ipv6Addr,
    /// Destination.
    pub destination: Ipv6Addr,
    /// Extension headers: the number of each, and its bytes, the first of which is overwritten.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// L4 packet.
    pub transport: Transport,
}

/// The payload of an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP: type, code, and what follows the checksum.
    Icmp(u8, u8, Vec<u8>),
    /// Any other protocol, with its bytes.
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
    /// True if the checksum is present.
    pub checksummed: bool,
    /// Data.
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// Returns a packet between two addresses, with DF set.
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
}

impl Ipv6 {
    /// Returns a packet between two addresses, without extension headers.
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
}
