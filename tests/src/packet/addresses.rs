//! Addresses of the hosts in the packet tests: clients, endpoints, backends and the gateway's interfaces.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

/// An interface of the gateway, named after the network that it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Network of the first consumer.
    A,
    /// Network of the second consumer, with the same addresses as the first one's.
    B,
    /// Network of the provider.
    Provider,
    /// An interface that is no attachment.
    Host,
}

impl Side {
    /// Every side.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::Provider, Self::Host];

    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::A => "gw-a",
            Self::B => "gw-b",
            Self::Provider => "gw-p",
            Self::Host => "gw-h",
        }
    }

    /// Returns the MAC address of the gateway's interface.
    #[must_use]
    pub const fn mac(self) -> Mac {
        [2, 0, 0, 0, 0, self as u8 + 1]
    }
}

/// The address of both consumers' clients.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// The address of both consumers' endpoints of the web service.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// Endpoint of A whose connection is pending.
pub const PENDING: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

/// Endpoint of A, bound to the service without backends.
pub const NO_BACKENDS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);

/// Endpoint of A, bound to the service without backends whose `no_backend_action` is `drop`.
pub const DROPPING_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 103);

/// Endpoint of A, bound to the service that offers every port.
pub const ALL_PORTS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 104);

/// IPv4 endpoint of A, bound to the service with IPv6 backends.
pub const NAT46_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 105);

/// IPv6 endpoint of A, bound to the service with IPv4 backends.
pub const NAT64_ENDPOINT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x105);

/// The backends of the web service.
pub const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11)];

/// The IPv6 address of both consumers' clients.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);

/// Both consumers' endpoints of the IPv6 web service.
pub const ENDPOINT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

/// IPv6 endpoint of A whose connection is pending.
pub const PENDING_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x101);

/// The backends of the IPv6 web service.
pub const BACKENDS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11),
];

/// The first of 16 SNAT addresses of the IPv6 web service.
pub const NAT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x40);

/// The first of 16 SNAT addresses of the web service.
pub const NAT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 64);

/// The client's MAC address.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 5];

/// The MAC address of a router in the consumer's network, with other clients behind it.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 1];

/// The MAC address of all backends.
pub const BACKEND_MAC: Mac = [2, 0, 0, 0, 2, 9];

/// The TCP port of the web service. Backends listen on 8443.
pub const HTTPS: u16 = 443;

/// The UDP port of the web service.
pub const DNS: u16 = 53;
