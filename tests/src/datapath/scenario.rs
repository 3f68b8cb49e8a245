//! A path through the gateway, for rows that are the same in both families and both mixes.

use std::net::{IpAddr, SocketAddr};

use crate::{
    datapath::{
        assertions::{PacketResult, sockets_of},
        differential::DifferentialHarness,
    },
    packet::{
        Packet,
        addresses::{BACKEND_MAC, HTTPS, Side},
        builders::{tcp_segment, udp_datagram},
    },
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
