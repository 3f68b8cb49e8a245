//! Addresses of the hosts in the packet tests: clients, endpoints, backends and the gateway's interfaces.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

/// Where a packet comes in, or goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The first consumer's network.
    A,
    /// The second consumer's, with the very same addresses.
    B,
    /// The provider's.
    Provider,
    /// An interface that is no attachment.
    Host,
}

impl Side {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::Provider, Self::Host];

    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::A => "gw-a",
            Self::B => "gw-b",
            Self::Provider => "gw-p",
            Self::Host => "gw-h",
        }
    }

    /// The hardware address of the gateway's interface there.
    #[must_use]
    pub const fn mac(self) -> Mac {
        [2, 0, 0, 0, 0, self as u8 + 1]
    }
}

/// The address of both consumers' clients.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// The address of both consumers' endpoints of the web service.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// An endpoint of A's that nobody has approved.
pub const PENDING: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

/// An endpoint of A's, to the service that has no backends.
pub const NO_BACKENDS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);

/// The same, of one that is silent about it.
pub const DROPPING_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 103);

/// An endpoint of A's, to the service that offers every port.
pub const ALL_PORTS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 104);

/// An endpoint of A's by IPv4, to the service whose backends are IPv6.
pub const NAT46_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 105);

/// The reverse.
pub const NAT64_ENDPOINT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x105);

/// The backends of the web service, and their weights.
pub const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11)];

/// The consumers' client, by IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);

/// Both consumers' endpoints of the IPv6 web service.
pub const ENDPOINT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

/// An endpoint of A's to it that nobody has approved.
pub const PENDING_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x101);

/// The backends of the IPv6 web service.
pub const BACKENDS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11),
];

/// Its first source NAT address; there are 16.
pub const NAT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x40);

/// The first source NAT address of the web service; there are 16.
pub const NAT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 64);

/// The client's station.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 5];

/// A router in the consumer's network, behind which other clients are.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 1];

/// The station that all backends are at.
pub const BACKEND_MAC: Mac = [2, 0, 0, 0, 2, 9];

/// The port that the web service offers by TCP; backends listen on 8443.
pub const HTTPS: u16 = 443;

/// The port that it offers by UDP.
pub const DNS: u16 = 53;
