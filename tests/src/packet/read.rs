//! Fields of a packet, of either address family.

use std::net::IpAddr;

use super::{Content, Packet, Tcp, Transport};

/// Returns the addresses and the payload of an IP packet.
///
/// # Panics
/// Panics if it is no IP packet.
#[must_use]
pub fn ip_parts(packet: &Packet) -> (IpAddr, IpAddr, &Transport) {
    match &packet.content {
        Content::Ipv4(ip) => (ip.source.into(), ip.destination.into(), &ip.transport),
        Content::Ipv6(ip) => (ip.source.into(), ip.destination.into(), &ip.transport),
        _ => panic!("no IP:\n{packet}"),
    }
}

/// Returns the TCP segment in a packet.
///
/// # Panics
/// Panics if there is none.
#[must_use]
pub fn tcp_of(packet: &Packet) -> &Tcp {
    match ip_parts(packet).2 {
        Transport::Tcp(tcp) => tcp,
        other => panic!("no TCP: {other:?}"),
    }
}

/// Returns the TTL or hop limit.
///
/// # Panics
/// Panics if it is no IP packet.
#[must_use]
pub fn hop_limit(packet: &Packet) -> u8 {
    match &packet.content {
        Content::Ipv4(ip) => ip.ttl,
        Content::Ipv6(ip) => ip.hop_limit,
        _ => panic!("no IP:\n{packet}"),
    }
}
