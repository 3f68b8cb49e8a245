//! A path through the gateway, for rows that are the same in both families and both mixes.

use std::net::{IpAddr, SocketAddr};

use gateway_common::DropReason;

use crate::{
    datapath::differential::{
        BACKEND_MAC, CLIENT_MAC, DifferentialHarness, ForwardedPacket, HTTPS, PacketResult, Side,
    },
    packet::{Content, Ipv4, Ipv6, Packet, Tcp, Transport, Udp},
};

/// The port that clients of every path come from.
pub const CLIENT_PORT: u16 = 40_000;
/// The port that the services offer by UDP.
const DNS: u16 = 53;
/// The backends' port of the one that they offer by TCP.
const BACKEND_PORT: u16 = 8_443;

/// The consumer's side and the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What rows are named by.
    pub name: &'static str,
    /// The endpoint, as the laboratory knows it.
    pub endpoint_name: &'static str,
    /// The service that it leads to.
    pub service: &'static str,
    client: &'static str,
    endpoint: &'static str,
    /// What backends' addresses begin with.
    backends: &'static str,
}

impl Scenario {
    /// Both families and both mixes.
    pub const ALL: [Self; 4] = [
        Self {
            name: "IPv4",
            endpoint_name: "a/web",
            service: "web",
            client: "10.0.0.5",
            endpoint: "10.0.0.100",
            backends: "10.1.0.1",
        },
        Self {
            name: "IPv6",
            endpoint_name: "a/web6",
            service: "web6",
            client: "fd00::5",
            endpoint: "fd00::100",
            backends: "fd00:1::1",
        },
        Self {
            name: "IPv4 to IPv6",
            endpoint_name: "a/four-to-six",
            service: "web6",
            client: "10.0.0.5",
            endpoint: "10.0.0.105",
            backends: "fd00:1::1",
        },
        Self {
            name: "IPv6 to IPv4",
            endpoint_name: "a/six-to-four",
            service: "web",
            client: "fd00::5",
            endpoint: "fd00::105",
            backends: "10.1.0.1",
        },
    ];

    /// Whether the consumer's side is IPv4.
    #[must_use]
    pub fn is_v4(self) -> bool {
        self.endpoint_ip().is_ipv4()
    }

    /// Whether the provider's is.
    #[must_use]
    pub fn provider_is_v4(self) -> bool {
        self.backends.starts_with("10.")
    }

    /// Whether the two sides are of different families.
    #[must_use]
    pub fn is_translated(self) -> bool {
        self.is_v4() != self.provider_is_v4()
    }

    /// The client's address.
    ///
    /// # Panics
    /// Never: literals are addresses.
    #[must_use]
    pub fn client_ip(self) -> IpAddr {
        self.client.parse().expect("an address")
    }

    /// The endpoint's address.
    ///
    /// # Panics
    /// Never: literals are addresses.
    #[must_use]
    pub fn endpoint_ip(self) -> IpAddr {
        self.endpoint.parse().expect("an address")
    }

    /// A router in the provider's network.
    ///
    /// # Panics
    /// Never: literals are addresses.
    #[must_use]
    pub fn router(self) -> IpAddr {
        let router = if self.provider_is_v4() {
            "10.1.0.254"
        } else {
            "fd00:1::fe"
        };
        router.parse().expect("an address")
    }

    /// Where the client is.
    #[must_use]
    pub fn client_socket(self) -> SocketAddr {
        (self.client_ip(), CLIENT_PORT).into()
    }

    /// What it connects to.
    #[must_use]
    pub fn https_socket(self) -> SocketAddr {
        (self.endpoint_ip(), HTTPS).into()
    }

    /// What it sends datagrams to.
    #[must_use]
    pub fn dns_socket(self) -> SocketAddr {
        (self.endpoint_ip(), DNS).into()
    }

    /// A segment of the client's, to be completed with words.
    #[must_use]
    pub fn client_segment(self) -> Packet {
        tcp_segment(self.client_socket(), self.https_socket())
    }

    /// A datagram of the client's.
    #[must_use]
    pub fn client_datagram(self, payload: &[u8]) -> Packet {
        udp_datagram(self.client_socket(), self.dns_socket(), payload)
    }

    /// It went to a backend of the path's service, from source NAT.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_forwarded_to_service(
        self,
        result: &PacketResult,
        backend_port: u16,
    ) -> ProviderFlow {
        let forwarded = result.expect_forwarded(Side::Provider);
        assert_eq!(forwarded.packet.to, BACKEND_MAC);
        let (nat, backend) = sockets_of(&forwarded);
        let text = backend.ip().to_string();
        assert!(
            text.starts_with(self.backends) && backend.port() == backend_port,
            "to {backend}"
        );
        assert!(
            nat.is_ipv4() == backend.is_ipv4() && nat.port() >= 1_024,
            "from {nat}"
        );
        ProviderFlow { nat, backend }
    }

    /// Opens a TCP connection, as far as both sides agree to it.
    ///
    /// # Panics
    /// When it does not open.
    #[track_caller]
    pub fn connect(self, harness: &mut DifferentialHarness) -> ProviderFlow {
        let syn = harness.send(Side::A, &self.client_segment().syn(1_000));
        let ends = self.expect_forwarded_to_service(&syn, BACKEND_PORT);
        harness
            .send(
                Side::Provider,
                &ends.backend_segment().syn_ack(5_000, 1_001),
            )
            .expect_forwarded(Side::A);
        harness
            .send(Side::A, &self.client_ack())
            .expect_forwarded(Side::Provider);
        ends
    }

    /// A segment of an open connection from the client.
    #[must_use]
    pub fn client_ack(self) -> Packet {
        self.client_segment().ack(1_001, 5_001)
    }
}

/// The provider's side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderFlow {
    /// As what the client appears.
    pub nat: SocketAddr,
    /// Who answers.
    pub backend: SocketAddr,
}

impl ProviderFlow {
    /// A segment of the backend's, to be completed with words.
    #[must_use]
    pub fn backend_segment(self) -> Packet {
        tcp_segment(self.backend, self.nat).with_source_mac(BACKEND_MAC)
    }

    /// A segment of an open connection from the backend.
    #[must_use]
    pub fn backend_ack(self) -> Packet {
        self.backend_segment().ack(5_001, 1_001)
    }

    /// A datagram of the backend's.
    #[must_use]
    pub fn backend_datagram(self, payload: &[u8]) -> Packet {
        udp_datagram(self.backend, self.nat, payload).with_source_mac(BACKEND_MAC)
    }
}

/// A packet between two addresses of a family, from the client's station to the gateway's in A.
///
/// # Panics
/// When they are of different ones.
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

/// A segment between two sockets, likewise, to be completed with words.
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

/// A datagram, likewise.
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

/// An ICMP error about a packet, of which it has so many bytes at the most.
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

/// The IP header's addresses, and what it carries.
///
/// # Panics
/// When it is no IP packet.
#[must_use]
pub fn ip_parts(packet: &Packet) -> (IpAddr, IpAddr, &Transport) {
    match &packet.content {
        Content::Ipv4(ip) => (ip.source.into(), ip.destination.into(), &ip.transport),
        Content::Ipv6(ip) => (ip.source.into(), ip.destination.into(), &ip.transport),
        _ => panic!("no IP:\n{packet}"),
    }
}

/// The TCP segment in a packet.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn tcp_of(packet: &Packet) -> &Tcp {
    match ip_parts(packet).2 {
        Transport::Tcp(tcp) => tcp,
        other => panic!("no TCP: {other:?}"),
    }
}

/// Hops that a packet may go yet.
///
/// # Panics
/// When it is no IP packet.
#[must_use]
pub fn hop_limit(packet: &Packet) -> u8 {
    match &packet.content {
        Content::Ipv4(ip) => ip.ttl,
        Content::Ipv6(ip) => ip.hop_limit,
        _ => panic!("no IP:\n{packet}"),
    }
}

impl Packet {
    /// With so many hops to go.
    #[must_use]
    pub fn with_hop_limit(mut self, hops: u8) -> Self {
        match &mut self.content {
            Content::Ipv4(ip) => ip.ttl = hops,
            Content::Ipv6(ip) => ip.hop_limit = hops,
            _ => {}
        }
        self
    }

    /// With these TCP options.
    ///
    /// # Panics
    /// When it is no TCP segment.
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

    /// Cut into fragments whose payloads are so long at the max_len, with this identification.
    ///
    /// # Panics
    /// When it is no IP packet.
    #[must_use]
    pub fn split_into_fragments(&self, max_len: usize, id: u32) -> Vec<Self> {
        let frame = self.bytes(false);
        let (head, protocol) = match &self.content {
            Content::Ipv4(_) => (34, frame[23]),
            Content::Ipv6(_) => (54, frame[20]),
            _ => panic!("no IP"),
        };
        let body = &frame[head..];
        let pieces: Vec<&[u8]> = body.chunks(max_len & !7).collect();
        let last = pieces.len() - 1;
        let mut offset = 0;
        let mut fragments = Vec::new();
        for (place, piece) in pieces.into_iter().enumerate() {
            let more = u16::from(place < last);
            let mut fragment = self.clone();
            let position = u16::try_from(offset).expect("a packet");
            match &mut fragment.content {
                Content::Ipv4(ip) => {
                    ip.id = u16::try_from(id).expect("16 bits");
                    ip.fragment = (more << 13) | (position / 8);
                    ip.transport = Transport::Other(protocol, piece.to_vec());
                }
                Content::Ipv6(ip) => {
                    let mut header = vec![0, 0];
                    header.extend((position | more).to_be_bytes());
                    header.extend(id.to_be_bytes());
                    ip.extensions = vec![(44, header)];
                    ip.transport = Transport::Other(protocol, piece.to_vec());
                }
                _ => {}
            }
            offset += piece.len();
            fragments.push(fragment);
        }
        fragments
    }
}

/// A fragment that was forwarded: identification, offset in bytes, whether more follow, protocol, and
/// the piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The datagram's identification.
    pub id: u32,
    /// Where the piece belongs.
    pub offset: u16,
    /// Whether another follows.
    pub more: bool,
    /// What the datagram is.
    pub protocol: u8,
    /// The piece.
    pub bytes: Vec<u8>,
}

/// The fragment in a packet.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn fragment_of(packet: &Packet) -> Fragment {
    match &packet.content {
        Content::Ipv4(ip) => match &ip.transport {
            Transport::Other(protocol, bytes) => Fragment {
                id: ip.id.into(),
                offset: (ip.fragment & 0x1fff) * 8,
                more: ip.fragment & 0x2000 != 0,
                protocol: *protocol,
                bytes: bytes.clone(),
            },
            other => panic!("no fragment: {other:?}"),
        },
        Content::Ipv6(ip) => match &ip.transport {
            Transport::Other(44, bytes) => {
                let position = u16::from_be_bytes([bytes[2], bytes[3]]);
                Fragment {
                    id: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
                    offset: position & !7,
                    more: position & 1 != 0,
                    protocol: bytes[0],
                    bytes: bytes[8..].to_vec(),
                }
            }
            other => panic!("no fragment: {other:?}"),
        },
        _ => panic!("no IP:\n{packet}"),
    }
}

/// The pieces put together, and read as the packet that they make between these addresses.
///
/// # Panics
/// When there is a gap, or a checksum is wrong.
#[must_use]
pub fn reassemble(fragments: &[Packet]) -> Packet {
    let mut whole = Vec::new();
    let mut protocol = 0;
    for fragment in fragments {
        let piece = fragment_of(fragment);
        assert_eq!(usize::from(piece.offset), whole.len(), "a gap");
        whole.extend(piece.bytes);
        protocol = piece.protocol;
    }
    let mut packet = fragments[0].clone();
    match &mut packet.content {
        Content::Ipv4(ip) => {
            ip.fragment = 0;
            ip.transport = Transport::Other(protocol, whole);
        }
        Content::Ipv6(ip) => {
            ip.transport = Transport::Other(protocol, whole);
        }
        _ => {}
    }
    Packet::parse(&packet.bytes(false)).expect("a packet whose checksums are right")
}

/// What was refused, for this reason: with a reset or an error, whichever suits the packet.
#[track_caller]
pub fn expect_rejected(result: &PacketResult, reason: DropReason) {
    match &result.verdict {
        gateway_common::Verdict::TcpReset(..) => {
            result.expect_tcp_reset(reason);
        }
        _ => {
            result.expect_icmp_error(reason);
        }
    }
}
