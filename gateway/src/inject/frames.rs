//! Builders of the injected frames. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder, PacketBuilderStep, TcpHeader,
};
use gateway_common::packet::Mac;

/// TTL and hop limit of injected TCP segments.
const HOP_LIMIT: u8 = 64;
/// Hop limit of neighbour discovery, by which receivers verify that no router forwarded it (RFC 4861, section 7.1).
const NDP_HOP_LIMIT: u8 = 255;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Flags of an advertisement: only Override is set (RFC 4861, section 4.4).
const OVERRIDE_FLAG: [u8; 4] = [0x20, 0, 0, 0];
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const UNKNOWN_MAC: [u8; 6] = [0; 6];

/// Returns a probe for other users of the address: an ARP probe (RFC 5227, section 2.1.1), or the neighbour
/// solicitation of duplicate address detection (RFC 4862, section 5.4.2).
#[must_use]
pub fn probe(from: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(from, BROADCAST_MAC, Ipv4Addr::UNSPECIFIED, address),
        IpAddr::V6(address) => ndp_message(
            (from, Ipv6Addr::UNSPECIFIED),
            solicited_node(address),
            (NEIGHBOUR_SOLICITATION, [0; 4]),
            &address.octets(),
        ),
    }
}

/// Returns a question for the MAC address of a neighbour: an ARP request (RFC 826), or a neighbour solicitation (RFC
/// 4861, section 7.2.2). It goes to the MAC address `to`, or to all hosts that may have the address. Without a sender,
/// or with one of the other family, the ARP request is a probe, and the solicitation is one for duplicate address
/// detection.
#[must_use]
pub fn solicitation(
    from: Mac,
    sender: Option<IpAddr>,
    neighbour: IpAddr,
    to: Option<Mac>,
) -> Vec<u8> {
    match (neighbour, sender) {
        (IpAddr::V4(neighbour), Some(IpAddr::V4(sender))) => {
            let to = to.map_or(BROADCAST_MAC, Mac::bytes);
            arp_request(from, to, sender, neighbour)
        }
        (IpAddr::V4(neighbour), _) => {
            let to = to.map_or(BROADCAST_MAC, Mac::bytes);
            arp_request(from, to, Ipv4Addr::UNSPECIFIED, neighbour)
        }
        (IpAddr::V6(neighbour), Some(IpAddr::V6(sender))) => {
            let to = match to {
                Some(mac) => (mac.bytes(), neighbour),
                None => solicited_node(neighbour),
            };
            let mut body = neighbour.octets().to_vec();
            body.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
            body.extend(from.bytes());
            ndp_message((from, sender), to, (NEIGHBOUR_SOLICITATION, [0; 4]), &body)
        }
        (IpAddr::V6(_), _) => probe(from, neighbour),
    }
}

/// Returns the MAC address and the IP address of the multicast group to which solicitations for an address are sent
/// (RFC 4291, section 2.7.1).
const fn solicited_node(address: Ipv6Addr) -> ([u8; 6], Ipv6Addr) {
    let [.., x, y, z] = address.octets();
    let (high, low) = (0xff00 | x as u16, u16::from_be_bytes([y, z]));
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low);
    ([0x33, 0x33, 0xff, x, y, z], group)
}

/// Returns an announcement of the address: an ARP announcement (RFC 5227, section 2.3), or an unsolicited neighbour
/// advertisement (RFC 4861, section 7.2.6).
#[must_use]
pub fn announcement(from: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(from, BROADCAST_MAC, address, address),
        IpAddr::V6(address) => {
            let mut body = address.octets().to_vec();
            body.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
            body.extend(from.bytes());
            ndp_message(
                (from, address),
                ([0x33, 0x33, 0, 0, 0, 1], ALL_NODES),
                (NEIGHBOUR_ADVERTISEMENT, OVERRIDE_FLAG),
                &body,
            )
        }
    }
}

fn arp_request(from: Mac, to: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &from.bytes(),
        &sender.octets(),
        &UNKNOWN_MAC,
        &target.octets(),
    );
    let mut frame = Vec::new();
    if let Ok(packet) = packet {
        let builder = PacketBuilder::ethernet2(from.bytes(), to).arp(packet);
        // Writing to a vector does not fail.
        let _ = builder.write(&mut frame);
    }
    frame
}

fn ndp_message(
    (from, source): (Mac, Ipv6Addr),
    (to, destination): ([u8; 6], Ipv6Addr),
    (kind, rest): (u8, [u8; 4]),
    body: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(from.bytes(), to)
        .ipv6(source.octets(), destination.octets(), NDP_HOP_LIMIT)
        .icmpv6_raw(kind, 0, rest);
    let mut frame = Vec::new();
    // Writing to a vector does not fail.
    let _ = builder.write(&mut frame, body);
    frame
}

/// Termination of one end of a TCP flow, in the name of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTermination {
    /// MAC addresses of the gateway and of the next hop.
    pub macs: (Mac, Mac),
    /// Address and port of the end in whose name the segment is sent.
    pub source: SocketAddr,
    /// Address and port of the end that is terminated.
    pub destination: SocketAddr,
    /// Last acknowledgement number that the destination sent: the sequence number that it expects next.
    pub sequence: u32,
    /// Last acknowledgement number that the source sent.
    pub acknowledgement: u32,
}

impl TcpTermination {
    /// Returns a reset, which its receiver accepts only if it expects exactly this sequence number (RFC 5961, section
    /// 3.2).
    #[must_use]
    pub fn reset(&self) -> Vec<u8> {
        self.segment(self.sequence, true)
    }

    /// Returns a segment with an old sequence number: its receiver answers with the number that it expects next (RFC
    /// 9293, section 3.10.7.4), and the data path answers that with an exact reset.
    #[must_use]
    pub fn challenge_ack_probe(&self) -> Vec<u8> {
        self.segment(self.sequence.wrapping_sub(1), false)
    }

    fn segment(&self, sequence: u32, reset: bool) -> Vec<u8> {
        let (from, to) = self.macs;
        let builder = PacketBuilder::ethernet2(from.bytes(), to.bytes());
        let (source, destination) = (self.source, self.destination);
        let builder = match (source.ip(), destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => builder.ipv4(a.octets(), b.octets(), HOP_LIMIT),
            (IpAddr::V6(a), IpAddr::V6(b)) => builder.ipv6(a.octets(), b.octets(), HOP_LIMIT),
            // Both addresses of one side of a flow have the same family.
            _ => return Vec::new(),
        };
        let mut header = TcpHeader::new(source.port(), destination.port(), sequence, 0);
        header.ack = true;
        header.acknowledgment_number = self.acknowledgement;
        header.rst = reset;
        let builder: PacketBuilderStep<TcpHeader> = builder.tcp_header(header);
        let mut frame = Vec::new();
        // Writing to a vector does not fail.
        let _ = builder.write(&mut frame, &[]);
        frame
    }
}
