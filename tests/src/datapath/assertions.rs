//! What became of a packet, and what rows demand of that.

use std::net::{IpAddr, SocketAddr};

use gateway_common::{DropReason, Verdict, drop_reason::Attribution};

use crate::packet::{
    Content, Ipv4, Ipv6, Mac, Packet, Socket, Tcp, Transport,
    addresses::{BACKEND_MAC, BACKENDS, NAT, Side},
    builders::SocketV6,
    flag,
    read::ip_parts,
};

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketResult {
    /// The native stages' verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Where it goes out.
    pub(crate) egress_side: Option<Side>,
}

impl PacketResult {
    fn parse_packet(&self) -> Packet {
        match Packet::parse(&self.frame) {
            Ok(packet) => packet,
            Err(error) => panic!("{:?}, but {error}: {:02x?}", self.verdict, self.frame),
        }
    }

    /// It was rewritten and goes out there, with every checksum right.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_forwarded(&self, to: Side) -> ForwardedPacket {
        assert!(
            matches!(self.verdict, Verdict::Redirect(_)) && self.egress_side == Some(to),
            "{:?} to {:?}, not forwarded to {to:?}",
            self.verdict,
            self.egress_side
        );
        let packet = self.parse_packet();
        assert_eq!(packet.from, to.mac(), "it leaves in somebody else's name");
        ForwardedPacket { packet }
    }

    /// It was dropped, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_dropped(&self, reason: DropReason) {
        assert!(
            matches!(self.verdict, Verdict::Drop(Attribution { reason: found, .. }) if found == reason),
            "{:?}, not dropped for {reason:?}",
            self.verdict
        );
    }

    /// It was left to the host, untouched.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_passed(&self, sent: &Packet) {
        assert_eq!(self.verdict, Verdict::Pass);
        assert_eq!(self.frame, sent.bytes(false));
    }

    /// The gateway answered it.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_reply(&self) -> Packet {
        assert_eq!(self.verdict, Verdict::Reply);
        self.parse_packet()
    }

    /// An ICMP error was sent back, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_icmp_error(&self, reason: DropReason) -> IcmpErrorPacket {
        assert!(
            matches!(self.verdict, Verdict::IcmpError(Attribution { reason: found, .. }) if found == reason),
            "{:?}, not an error for {reason:?}",
            self.verdict
        );
        let packet = self.parse_packet();
        let (source, destination, transport) = match packet.content {
            Content::Ipv4(ip) => (ip.source.into(), ip.destination.into(), ip.transport),
            Content::Ipv6(ip) => (ip.source.into(), ip.destination.into(), ip.transport),
            _ => panic!("no IP:\n{packet}"),
        };
        match transport {
            Transport::Icmp(kind, code, rest) => IcmpErrorPacket {
                kind: (kind, code),
                source,
                destination,
                rest: u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]),
                embedded: rest[4..].to_vec(),
            },
            other => panic!("no ICMP: {other:?}"),
        }
    }

    /// A TCP reset was sent back, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_tcp_reset(&self, reason: DropReason) -> Tcp {
        assert!(
            matches!(self.verdict, Verdict::TcpReset(Attribution { reason: found, .. }) if found == reason),
            "{:?}, not a reset for {reason:?}",
            self.verdict
        );
        let packet = self.parse_packet();
        match packet.content {
            Content::Ipv4(Ipv4 {
                transport: Transport::Tcp(tcp),
                ..
            })
            | Content::Ipv6(Ipv6 {
                transport: Transport::Tcp(tcp),
                ..
            }) if tcp.flags & flag::RST != 0 => tcp,
            _ => panic!("no reset:\n{packet}"),
        }
    }
}

/// A packet that was forwarded.
#[derive(Clone, Debug)]
pub struct ForwardedPacket {
    /// The packet as it leaves.
    pub packet: Packet,
}

impl ForwardedPacket {
    /// The IPv4 packet.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn ipv4(&self) -> &Ipv4 {
        match &self.packet.content {
            Content::Ipv4(ipv4) => ipv4,
            _ => panic!("no IPv4:\n{}", self.packet),
        }
    }

    /// Where it is from, and for whom.
    ///
    /// # Panics
    /// When it is neither TCP nor UDP.
    #[must_use]
    pub fn sockets(&self) -> (Socket, Socket) {
        let ipv4 = self.ipv4();
        let (source, destination) = match &ipv4.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            _ => panic!("no ports:\n{}", self.packet),
        };
        ((ipv4.source, source), (ipv4.destination, destination))
    }

    /// It comes from a source NAT address of the web service, and from no well-known port.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_snat_source(self) -> Self {
        let ((address, port), _) = self.sockets();
        let within = u32::from(address).wrapping_sub(u32::from(NAT)) < 16;
        assert!(
            within && port >= 1_024,
            "from {address}:{port}, not from source NAT"
        );
        self
    }

    /// It is for a backend of the web service, on this port.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_backend(self, port: u16) -> Self {
        let (_, (address, found)) = self.sockets();
        assert!(
            BACKENDS.contains(&address) && found == port,
            "to {address}:{found}"
        );
        assert_eq!(self.packet.to, BACKEND_MAC);
        self
    }

    /// It is from and for these.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_sockets(self, source: Socket, destination: Socket) -> Self {
        assert_eq!(self.sockets(), (source, destination));
        self
    }

    /// It goes to this station.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_destination_mac(self, mac: Mac) -> Self {
        assert_eq!(self.packet.to, mac);
        self
    }
}

impl ForwardedPacket {
    /// The IPv6 packet.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn ipv6(&self) -> &Ipv6 {
        match &self.packet.content {
            Content::Ipv6(ipv6) => ipv6,
            _ => panic!("no IPv6:\n{}", self.packet),
        }
    }

    /// Where the IPv6 packet is from, and for whom.
    ///
    /// # Panics
    /// When it is neither TCP nor UDP.
    #[must_use]
    pub fn sockets_v6(&self) -> (SocketV6, SocketV6) {
        let ipv6 = self.ipv6();
        let (source, destination) = match &ipv6.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            _ => panic!("no ports:\n{}", self.packet),
        };
        ((ipv6.source, source), (ipv6.destination, destination))
    }
}

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpErrorPacket {
    /// Type and code.
    pub kind: (u8, u8),
    /// Who sends it.
    pub source: IpAddr,
    /// Who is told.
    pub destination: IpAddr,
    /// What is between checksum and embedded packet.
    pub rest: u32,
    /// The beginning of the packet that it is about.
    pub embedded: Vec<u8>,
}

impl IcmpErrorPacket {
    /// It embeds the beginning of this packet, as it was sent.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_embedded(self, sent: &Packet) -> Self {
        let frame = sent.bytes(false);
        let length = self.embedded.len();
        assert!(length >= 28, "{length} bytes say too little");
        assert_eq!(self.embedded, frame[14..][..length]);
        self
    }
}

/// What was refused, for this reason: with a reset or an error, whichever suits the packet.
#[track_caller]
pub fn expect_rejected(result: &PacketResult, reason: DropReason) {
    match &result.verdict {
        Verdict::TcpReset(..) => {
            result.expect_tcp_reset(reason);
        }
        _ => {
            result.expect_icmp_error(reason);
        }
    }
}

/// The addresses and ports of a packet.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn sockets_of(forwarded: &ForwardedPacket) -> (SocketAddr, SocketAddr) {
    let (source, destination, transport) = ip_parts(&forwarded.packet);
    let (from, to) = match transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination),
        Transport::Udp(udp) => (udp.source, udp.destination),
        other => panic!("no ports: {other:?}"),
    };
    ((source, from).into(), (destination, to).into())
}
