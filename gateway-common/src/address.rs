//! IP addresses of either family in 128 bits.
//!
//! An IPv4 address is held as an IPv4-mapped IPv6 address, `::ffff:0:0/96` (RFC 4291, section 2.5.5.2). The
//! configuration maps are keyed by these. Flow keys hold addresses of their own family, which are shorter for IPv4.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

use crate::byte_order::Be32;

/// An address of either family, as four words in network byte order.
///
/// # Examples
///
/// ```
/// use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
///
/// use gateway_common::{Be32, IpAddress};
///
/// let address = IpAddress::from(Ipv4Addr::new(10, 0, 0, 5));
/// let mapped: Ipv6Addr = "::ffff:10.0.0.5".parse()?;
/// assert_eq!(address, IpAddress::from(mapped));
/// assert_eq!(address.to_v4(), Some(Be32::new(0x0a00_0005)));
///
/// // The mapping is reversible: an IPv4-mapped address is an IPv4 address again.
/// assert_eq!(IpAddr::from(address), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)));
///
/// let ipv6: Ipv6Addr = "fd00::5".parse()?;
/// assert_eq!(IpAddress::from(ipv6).to_v4(), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct IpAddress([Be32; 4]);

/// The third word of an IPv4-mapped address.
const MAPPED: Be32 = Be32::new(0xffff);

impl IpAddress {
    /// Returns the address with these four words.
    #[inline(always)]
    #[must_use]
    pub const fn new(words: [Be32; 4]) -> Self {
        Self(words)
    }

    /// Returns the four words.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [Be32; 4] {
        self.0
    }

    /// Maps an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(address: Be32) -> Self {
        Self([Be32::new(0), Be32::new(0), MAPPED, address])
    }

    /// Returns the IPv4 address if this is an IPv4-mapped one.
    #[inline(always)]
    #[must_use]
    pub const fn to_v4(self) -> Option<Be32> {
        let [a, b, c, address] = self.0;
        if a.raw() == 0 && b.raw() == 0 && c.raw() == MAPPED.raw() {
            Some(address)
        } else {
            None
        }
    }
}

impl From<Ipv4Addr> for IpAddress {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(Be32::from(address))
    }
}

impl From<Ipv6Addr> for IpAddress {
    fn from(address: Ipv6Addr) -> Self {
        let words: [u32; 4] = bytemuck::cast(address.octets());
        Self(bytemuck::cast(words))
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<IpAddress> for IpAddr {
    fn from(address: IpAddress) -> Self {
        match address.to_v4() {
            Some(address) => Self::V4(address.into()),
            None => Self::V6(Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(address.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_round_trip() {
        for text in [
            "10.0.0.5",
            "255.255.255.255",
            "fd00::5",
            "2001:db8::1",
            "::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(IpAddress::from(address)), address);
        }
        let mapped: Ipv6Addr = "::ffff:10.0.0.5".parse().unwrap();
        let plain: IpAddr = "10.0.0.5".parse().unwrap();
        assert_eq!(IpAddr::from(IpAddress::from(mapped)), plain);
        assert_eq!(
            bytemuck::bytes_of(&IpAddress::from(mapped)),
            mapped.octets()
        );
    }
}
