//! Scenarios: the packet tests' cases that apply to IPv4, IPv6, NAT46 and NAT64 alike run in each of them.

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

/// Source port of the client.
pub const CLIENT_PORT: u16 = 40_000;

/// UDP port of the services.
const DNS: u16 = 53;

/// TCP port of the backends.
const BACKEND_PORT: u16 = 8_443;

/// A pair of address families: the consumer's and the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Name in messages.
    pub name: &'static str,
    /// Reference of the endpoint.
    pub endpoint_name: &'static str,
    /// Service that the endpoint is bound to.
    pub service: &'static str,
    client: &'static str,
    endpoint: &'static str,
    /// Prefix of the backends' addresses, as text.
    backends: &'static str,
}

impl Scenario {
    /// Every pair of address families.
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

    /// Returns true if the consumer's side is IPv4.
    #[must_use]
    pub fn is_v4(self) -> bool {
        self.endpoint_ip().is_ipv4()
    }

    /// Returns true if the provider's side is IPv4.
    #[must_use]
    pub fn provider_is_v4(self) -> bool {
        self.backends.starts_with("10.")
    }

    /// Returns true if the gateway translates between address families.
    #[must_use]
    pub fn is_translated(self) -> bool {
        self.is_v4() != self.provider_is_v4()
    }

    /// Returns the client's address.
    ///
    /// # Panics
    /// Never panics: the literals are addresses.
    #[must_use]
    pub fn client_ip(self) -> IpAddr {
        self.client.parse().expect("an address")
    }

    /// Returns the endpoint's address.
    ///
    /// # Panics
    /// Never panics: the literals are addresses.
    #[must_use]
    pub fn endpoint_ip(self) -> IpAddr {
        self.endpoint.parse().expect("an address")
    }

    /// Returns the address of a router in the provider's network.
    ///
    /// # Panics
    /// Never panics: the literals are addresses.
    #[must_use]
    pub fn router(self) -> IpAddr {
        let router = if self.provider_is_v4() {
            "10.1.0.254"
        } else {
            "fd00:1::fe"
        };
        router.parse().expect("an address")
    }

    /// Returns the client's socket.
    #[must_use]
    pub fn client_socket(self) -> SocketAddr {
        (self.client_ip(), CLIENT_PORT).into()
    }

    /// Returns the endpoint's HTTPS socket.
    #[must_use]
    pub fn https_socket(self) -> SocketAddr {
        (self.endpoint_ip(), HTTPS).into()
    }

    /// Returns the endpoint's DNS socket.
    #[must_use]
    pub fn dns_socket(self) -> SocketAddr {
        (self.endpoint_ip(), DNS).into()
    }

    /// Returns a TCP segment without flags from the client.
    #[must_use]
    pub fn client_segment(self) -> Packet {
        tcp_segment(self.client_socket(), self.https_socket())
    }

    /// Returns a UDP datagram from the client.
    #[must_use]
    pub fn client_datagram(self, payload: &[u8]) -> Packet {
        udp_datagram(self.client_socket(), self.dns_socket(), payload)
    }

    /// Expects that a packet was forwarded to a backend of the service, from an SNAT address.
    ///
    /// # Panics
    /// Panics otherwise.
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

    /// Establishes a TCP connection.
    ///
    /// # Panics
    /// Panics if it does not open.
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

    /// Returns a segment of an established connection from the client.
    #[must_use]
    pub fn client_ack(self) -> Packet {
        self.client_segment().ack(1_001, 5_001)
    }
}

/// The provider's side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderFlow {
    /// SNAT address and port.
    pub nat: SocketAddr,
    /// Socket of the backend.
    pub backend: SocketAddr,
}

impl ProviderFlow {
    /// Returns a TCP segment without flags from the backend.
    #[must_use]
    pub fn backend_segment(self) -> Packet {
        tcp_segment(self.backend, self.nat).with_source_mac(BACKEND_MAC)
    }

    /// Returns a segment of an established connection from the backend.
    #[must_use]
    pub fn backend_ack(self) -> Packet {
        self.backend_segment().ack(5_001, 1_001)
    }

    /// Returns a UDP datagram from the backend.
    #[must_use]
    pub fn backend_datagram(self, payload: &[u8]) -> Packet {
        udp_datagram(self.backend, self.nat, payload).with_source_mac(BACKEND_MAC)
    }
}
