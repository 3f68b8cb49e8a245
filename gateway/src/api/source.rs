//! The source of connections, for limits before authentication.

use std::net::IpAddr;

/// The source of connections, as far as it is known before authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ClientSource {
    /// A network address: one IPv4 address, or an IPv6 /64. A single subscriber or host gets a whole /64 (RFC 6177,
    /// RFC 7934), so addresses within it are one source.
    Network(IpAddr),
    /// A user of the host, by user id; `None` if the kernel does not report it.
    User(Option<u32>),
}

impl ClientSource {
    /// Returns the source of a peer's address. IPv4-mapped IPv6 addresses count as IPv4 addresses.
    pub(super) fn from_address(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                const PREFIX: u128 = !(u64::MAX as u128);
                std::net::Ipv6Addr::from(u128::from(address) & PREFIX).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_source() {
        let source = |text: &str| ClientSource::from_address(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
