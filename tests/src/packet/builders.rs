//! Builders of packets.
//!
//! Packets are sent from the client's MAC address to the gateway's in network A, unless a method changes that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Arp, Content, Ipv4, Ipv6, Mac, Packet, Socket, Tcp, Transport, Udp,
    addresses::{BACKEND_MAC, CLIENT, CLIENT_MAC, ENDPOINT, Side},
    flag,
};

/// Returns an IPv4 TCP segment without flags. Methods like [`Packet::syn`] complete it.
#[must_use]
pub fn tcp(source: Socket, destination: Socket) -> Packet {
    tcp_segment(source.into(), destination.into())
}

/// An IPv6 address and a port.
pub type SocketV6 = (Ipv6Addr, u16);

/// Returns an IPv6 TCP segment without flags.
#[must_use]
pub fn tcp_v6(source: SocketV6, destination: SocketV6) -> Packet {
    let mut packet = tcp((CLIENT, source.1), (ENDPOINT, destination.1));
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source.0, destination.0, ipv4.transport));
    }
    packet
}

/// Returns an IPv6 UDP datagram.
#[must_use]
pub fn udp_v6(source: SocketV6, destination: SocketV6, payload: &[u8]) -> Packet {
    let mut packet = udp((CLIENT, source.1), (ENDPOINT, destination.1), payload);
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source.0, destination.0, ipv4.transport));
    }
    packet
}

/// Returns an ICMPv6 message.
#[must_use]
pub fn icmp_v6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, rest: &[u8]) -> Packet {
    let mut packet = icmp(CLIENT, ENDPOINT, kind, 0, rest);
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source, destination, ipv4.transport));
    }
    packet
}

/// Returns a neighbour solicitation, sent to the target's solicited-node multicast address.
#[must_use]
pub fn neighbour_solicitation(target: Ipv6Addr, source: Ipv6Addr) -> Packet {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(x),
        u16::from_be_bytes([y, z]),
    );
    let mut rest = vec![0; 4];
    rest.extend(target.octets());
    if !source.is_unspecified() {
        rest.extend([1, 1]);
        rest.extend(CLIENT_MAC);
    }
    let mut packet = icmp_v6(source, group, 135, &rest).edit_ipv6(|ip| ip.hop_limit = 255);
    packet.to = [0x33, 0x33, 0xff, x, y, z];
    packet
}

/// Returns an IPv4 UDP datagram.
#[must_use]
pub fn udp(source: Socket, destination: Socket, payload: &[u8]) -> Packet {
    udp_datagram(source.into(), destination.into(), payload)
}

/// Returns an ICMP message.
#[must_use]
pub fn icmp(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, code: u8, rest: &[u8]) -> Packet {
    packet(Ipv4::new(
        source,
        destination,
        Transport::Icmp(kind, code, rest.to_vec()),
    ))
}

fn packet(ipv4: Ipv4) -> Packet {
    Packet {
        to: Side::A.mac(),
        from: CLIENT_MAC,
        content: Content::Ipv4(ipv4),
    }
}

/// Returns a broadcast ARP request.
#[must_use]
pub fn arp_request(target: Ipv4Addr, sender: (Mac, Ipv4Addr)) -> Packet {
    Packet {
        to: [0xff; 6],
        from: sender.0,
        content: Content::Arp(Arp {
            operation: 1,
            sender,
            target: ([0; 6], target),
        }),
    }
}

impl Packet {
    fn ipv4_mut(&mut self) -> &mut Ipv4 {
        match &mut self.content {
            Content::Ipv4(ipv4) => ipv4,
            _ => panic!("no IPv4"),
        }
    }

    fn transport_mut(&mut self) -> &mut Transport {
        match &mut self.content {
            Content::Ipv4(ipv4) => &mut ipv4.transport,
            Content::Ipv6(ipv6) => &mut ipv6.transport,
            _ => panic!("no IP"),
        }
    }

    fn tcp_mut(&mut self) -> &mut Tcp {
        match self.transport_mut() {
            Transport::Tcp(tcp) => tcp,
            _ => panic!("no TCP"),
        }
    }

    /// Changes the IPv6 header.
    #[must_use]
    pub fn edit_ipv6(mut self, change: impl FnOnce(&mut Ipv6)) -> Self {
        match &mut self.content {
            Content::Ipv6(ipv6) => change(ipv6),
            _ => panic!("no IPv6"),
        }
        self
    }

    /// Sets flags and numbers of a TCP segment.
    #[must_use]
    pub fn with_flags(mut self, flags: u8, sequence: u32, acknowledgement: u32) -> Self {
        let tcp = self.tcp_mut();
        (tcp.flags, tcp.sequence, tcp.acknowledgement) = (flags, sequence, acknowledgement);
        self
    }

    /// Makes the segment a SYN with options like those of Linux.
    #[must_use]
    pub fn syn(mut self, sequence: u32) -> Self {
        self.tcp_mut().options = vec![2, 4, 5, 0xb4, 4, 2, 1, 1];
        self.with_flags(flag::SYN, sequence, 0)
    }

    /// Makes the segment a SYN-ACK.
    #[must_use]
    pub fn syn_ack(self, sequence: u32, acknowledgement: u32) -> Self {
        self.with_flags(flag::SYN | flag::ACK, sequence, acknowledgement)
    }

    /// Makes the segment an acknowledgement.
    #[must_use]
    pub fn ack(self, sequence: u32, acknowledgement: u32) -> Self {
        self.with_flags(flag::ACK, sequence, acknowledgement)
    }

    /// Adds TCP flags.
    #[must_use]
    pub fn add_flags(mut self, flags: u8) -> Self {
        self.tcp_mut().flags |= flags;
        self
    }

    /// Sets the payload of a TCP segment.
    #[must_use]
    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        self.tcp_mut().payload = payload.to_vec();
        self
    }

    /// Sets the source MAC address. For [`BACKEND_MAC`], the destination becomes the gateway's MAC address in the
    /// provider's network.
    #[must_use]
    pub fn with_source_mac(mut self, mac: Mac) -> Self {
        self.from = mac;
        if mac == BACKEND_MAC {
            self.to = Side::Provider.mac();
        }
        self
    }

    /// Sets the destination to the gateway's MAC address of another side.
    #[must_use]
    pub fn sent_to(mut self, side: Side) -> Self {
        self.to = side.mac();
        self
    }

    /// Changes the IPv4 header.
    #[must_use]
    pub fn edit_ipv4(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        change(self.ipv4_mut());
        self
    }

    /// Removes the UDP checksum.
    #[must_use]
    pub fn without_udp_checksum(mut self) -> Self {
        match self.transport_mut() {
            Transport::Udp(udp) => udp.checksummed = false,
            _ => panic!("no UDP"),
        }
        self
    }
}

/// The four sockets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Socket of the client.
    pub client: Socket,
    /// Socket of the endpoint.
    pub endpoint: Socket,
    /// SNAT address and port.
    pub nat: Socket,
    /// Socket of the backend.
    pub backend: Socket,
}

impl Connection {
    /// Returns a segment of the established flow from the client.
    #[must_use]
    pub fn client_ack(&self) -> Packet {
        tcp(self.client, self.endpoint).ack(1_001, 5_001)
    }

    /// Returns a segment of the established flow from the backend.
    #[must_use]
    pub fn backend_ack(&self) -> Packet {
        tcp(self.backend, self.nat)
            .with_source_mac(BACKEND_MAC)
            .ack(5_001, 1_001)
    }
}

/// Returns a packet between two addresses of the same family.
///
/// # Panics
/// Panics if the families differ.
#[must_use]
pub fn ip_packet(source: IpAddr, destination: IpAddr, transport: Transport) -> Packet {
    let content = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Content::Ipv4(Ipv4::new(source, destination, transport))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Content::Ipv6(Ipv6::new(source, destination, transport))
        }
        _ => panic!("from {source} to {destination}"),
    };
    Packet {
        to: Side::A.mac(),
        from: CLIENT_MAC,
        content,
    }
}

/// Returns a TCP segment without flags between two sockets.
#[must_use]
pub fn tcp_segment(source: SocketAddr, destination: SocketAddr) -> Packet {
    let tcp = Tcp {
        source: source.port(),
        destination: destination.port(),
        sequence: 0,
        acknowledgement: 0,
        flags: 0,
        window: 64_240,
        options: Vec::new(),
        payload: Vec::new(),
    };
    ip_packet(source.ip(), destination.ip(), Transport::Tcp(tcp))
}

/// Returns a UDP datagram between two sockets.
#[must_use]
pub fn udp_datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Packet {
    let udp = Udp {
        source: source.port(),
        destination: destination.port(),
        checksummed: true,
        payload: payload.to_vec(),
    };
    ip_packet(source.ip(), destination.ip(), Transport::Udp(udp))
}

/// Returns an ICMP error that embeds at most `max_len` bytes of a packet.
#[must_use]
pub fn icmp_error(
    source: IpAddr,
    destination: IpAddr,
    kind: (u8, u8),
    rest: u32,
    about: &Packet,
    max_len: usize,
) -> Packet {
    let frame = about.bytes(false);
    let embedded = &frame[14..];
    let mut body = rest.to_be_bytes().to_vec();
    body.extend(&embedded[..embedded.len().min(max_len)]);
    ip_packet(source, destination, Transport::Icmp(kind.0, kind.1, body))
}

impl Packet {
    /// Sets the TTL or hop limit.
    #[must_use]
    pub fn with_hop_limit(mut self, hops: u8) -> Self {
        match &mut self.content {
            Content::Ipv4(ip) => ip.ttl = hops,
            Content::Ipv6(ip) => ip.hop_limit = hops,
            _ => {}
        }
        self
    }

    /// Sets the TCP options.
    ///
    /// # Panics
    /// Panics if it is no TCP segment.
    #[must_use]
    pub fn with_tcp_options(mut self, options: &[u8]) -> Self {
        let transport = match &mut self.content {
            Content::Ipv4(ip) => &mut ip.transport,
            Content::Ipv6(ip) => &mut ip.transport,
            _ => panic!("no IP"),
        };
        match transport {
            Transport::Tcp(tcp) => tcp.options = options.to_vec(),
            _ => panic!("no TCP"),
        }
        self
    }
}
