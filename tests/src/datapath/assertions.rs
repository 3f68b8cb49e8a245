//! The result of a packet, and assertions on it.

use std::net::{IpAddr, SocketAddr};

use gateway_common::{DropReason, Verdict, drop_reason::Attribution};

use crate::packet::{
    Content, Ipv4, Ipv6, Mac, Packet, Socket, Tcp, Transport,
    addresses::{BACKEND_MAC, BACKENDS, NAT, Side},
    builders::SocketV6,
    flag,
    read::ip_parts,
};

/// The result of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketResult {
    /// Verdict of the native data path.
    pub verdict: Verdict,
    /// Frame after processing.
    pub frame: Vec<u8>,
    /// Side that the packet is sent to.
    pub(crate) egress_side: Option<Side>,
}

impl PacketResult {
    /// Returns true if the packet was forwarded.
    #[must_use]
    pub const fn is_forwarded(&self) -> bool {
        matches!(self.verdict, Verdict::Redirect(_))
    }

    fn parse_packet(&self) -> Packet {
        match Packet::parse(&self.frame) {
            Ok(packet) => packet,
            Err(error) => panic!("{:?}, but {error}: {:02x?}", self.verdict, self.frame),
        }
    }

    /// Expects that the packet was forwarded to a side, with every checksum right.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_forwarded(&self, to: Side) -> ForwardedPacket {
        assert!(
            matches!(self.verdict, Verdict::Redirect(_)) && self.egress_side == Some(to),
            "{:?} to {:?}, not forwarded to {to:?}",
            self.verdict,
            self.egress_side
        );
        let packet = self.parse_packet();
        assert_eq!(
            packet.from,
            to.mac(),
            "the source MAC address is not that of {to:?}"
        );
        ForwardedPacket { packet }
    }

    /// Expects that the packet was dropped for this reason.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_dropped(&self, reason: DropReason) {
        assert!(
            matches!(self.verdict, Verdict::Drop(Attribution { reason: found, .. }) if found == reason),
            "{:?}, not dropped for {reason:?}",
            self.verdict
        );
    }

    /// Expects that the packet was passed to the host unchanged.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_passed(&self, sent: &Packet) {
        assert_eq!(self.verdict, Verdict::Pass);
        assert_eq!(self.frame, sent.bytes(false));
    }

    /// Expects a reply of the gateway, and returns it.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_reply(&self) -> Packet {
        assert_eq!(self.verdict, Verdict::Reply);
        self.parse_packet()
    }

    /// Expects an ICMP error for this reason, and returns it.
    ///
    /// # Panics
    /// Panics otherwise.
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

    /// Expects a TCP reset for this reason, and returns it.
    ///
    /// # Panics
    /// Panics otherwise.
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

/// A forwarded packet.
#[derive(Clone, Debug)]
pub struct ForwardedPacket {
    /// Packet after rewriting.
    pub packet: Packet,
}

impl ForwardedPacket {
    /// Returns the packet that the kernel's program forwarded, given its action and the frame afterwards. A reply or a
    /// reject leaves by a redirect too, but to the side that the packet came from.
    #[must_use]
    pub fn from_kernel(from: Side, action: u32, frame: &[u8]) -> Option<Self> {
        const XDP_REDIRECT: u32 = 4;
        if action != XDP_REDIRECT {
            return None;
        }
        let packet = Packet::parse(frame).ok()?;
        (packet.from != from.mac()).then_some(Self { packet })
    }

    /// Returns the IPv4 packet.
    ///
    /// # Panics
    /// Panics if it is none.
    #[must_use]
    pub fn ipv4(&self) -> &Ipv4 {
        match &self.packet.content {
            Content::Ipv4(ipv4) => ipv4,
            _ => panic!("no IPv4:\n{}", self.packet),
        }
    }

    /// Returns the source and destination sockets of an IPv4 packet.
    ///
    /// # Panics
    /// Panics if it is neither TCP nor UDP.
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

    /// Expects an SNAT address of the web service as source, and no well-known port.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_snat_source(self) -> Self {
        let ((address, port), _) = self.sockets();
        let within = u32::from(address).wrapping_sub(u32::from(NAT)) < 16;
        assert!(
            within && port >= 1_024,
            "from {address}:{port}, not from SNAT"
        );
        self
    }

    /// Expects a backend of the web service as destination, with this port.
    ///
    /// # Panics
    /// Panics otherwise.
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

    /// Expects these source and destination sockets.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_sockets(self, source: Socket, destination: Socket) -> Self {
        assert_eq!(self.sockets(), (source, destination));
        self
    }

    /// Expects this destination MAC address.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_destination_mac(self, mac: Mac) -> Self {
        assert_eq!(self.packet.to, mac);
        self
    }
}

impl ForwardedPacket {
    /// Returns the IPv6 packet.
    ///
    /// # Panics
    /// Panics if it is none.
    #[must_use]
    pub fn ipv6(&self) -> &Ipv6 {
        match &self.packet.content {
            Content::Ipv6(ipv6) => ipv6,
            _ => panic!("no IPv6:\n{}", self.packet),
        }
    }

    /// Returns the source and destination sockets of an IPv6 packet.
    ///
    /// # Panics
    /// Panics if it is neither TCP nor UDP.
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
    /// ICMP type and code.
    pub kind: (u8, u8),
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The four bytes between checksum and embedded packet.
    pub rest: u32,
    /// The beginning of the packet that the error is about.
    pub embedded: Vec<u8>,
}

impl IcmpErrorPacket {
    /// Expects that the error embeds the beginning of this packet.
    ///
    /// # Panics
    /// Panics otherwise.
    #[track_caller]
    pub fn expect_embedded(self, sent: &Packet) -> Self {
        let frame = sent.bytes(false);
        let length = self.embedded.len();
        assert!(length >= 28, "only {length} bytes are embedded");
        assert_eq!(self.embedded, frame[14..][..length]);
        self
    }
}

/// Expects a reject for this reason: a TCP reset or an ICMP error.
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

/// Returns the source and destination sockets of a packet of either family.
///
/// # Panics
/// Panics if it has none.
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
