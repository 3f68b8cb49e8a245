//! Packets: built from words, and read back. Independent of the data path's own code, checksums
//! included, so that the two can't share a mistake.

pub mod addresses;
pub mod builders;
mod checksum;
mod display;
mod encode;
pub mod fragments;
mod parse;
pub mod read;

use std::net::{Ipv4Addr, Ipv6Addr};

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
}
