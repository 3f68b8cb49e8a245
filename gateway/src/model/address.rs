//! Addresses and address ranges of endpoints, backends and SNAT.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{Problem, schema};

/// Special-purpose IPv4 blocks that no object may use (RFC 6890 and its registries): first address, last address and
/// description.
const RESERVED_V4: &[(Ipv4Addr, Ipv4Addr, &str)] = &[
    block_v4([0, 0, 0, 0], 8, "of \"this network\" (0.0.0.0/8)"),
    block_v4([127, 0, 0, 0], 8, "a loopback address"),
    block_v4([169, 254, 0, 0], 16, "a link-local address"),
    block_v4([224, 0, 0, 0], 4, "a multicast address"),
    block_v4([240, 0, 0, 0], 4, "a broadcast or reserved address"),
];

/// Special-purpose IPv6 blocks that no object may use.
const RESERVED_V6: &[(Ipv6Addr, Ipv6Addr, &str)] = &[
    block_v6(0, 96, "unspecified, loopback or IPv4-compatible (::/96)"),
    block_v6(0xffff << 32, 96, "an IPv4-mapped address"),
    block_v6(0xfe80 << 112, 10, "a link-local address"),
    block_v6(0xff00 << 112, 8, "a multicast address"),
];

const fn block_v4(
    start: [u8; 4],
    bits: u32,
    what: &'static str,
) -> (Ipv4Addr, Ipv4Addr, &'static str) {
    let first = u32::from_be_bytes(start);
    let last = first | u32::MAX >> bits;
    (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last), what)
}

const fn block_v6(
    first: u128,
    bits: u32,
    what: &'static str,
) -> (Ipv6Addr, Ipv6Addr, &'static str) {
    let last = first | u128::MAX >> bits;
    (Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last), what)
}

/// Refuses an address that no host can have.
///
/// # Errors
/// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the field.
pub fn check_host(field: &str, address: IpAddr) -> Result<(), Problem> {
    check_hosts(field, AddressRange::one(address))
}

/// Refuses a range that holds an address that no host can have, at either end or in between.
///
/// # Errors
/// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the field.
pub fn check_hosts(field: &str, range: AddressRange) -> Result<(), Problem> {
    let reserved = match range.ends() {
        (IpAddr::V4(first), IpAddr::V4(last)) => reserved(RESERVED_V4, first, last),
        (IpAddr::V6(first), IpAddr::V6(last)) => reserved(RESERVED_V6, first, last),
        // Parsing ensures that both ends are of one family.
        _ => None,
    };
    match reserved {
        None => Ok(()),
        Some((address, what)) => Err(Problem::invalid(
            field,
            format!("{address} is {what}, which no host of a network can have"),
        )),
    }
}

/// Returns the first reserved address from `first` to `last`, with the description of its block.
fn reserved<A: Copy + Ord + Into<IpAddr>>(
    blocks: &[(A, A, &'static str)],
    first: A,
    last: A,
) -> Option<(IpAddr, &'static str)> {
    let mut blocks = blocks.iter();
    let (start, _, what) = blocks.find(|(start, end, _)| first <= *end && *start <= last)?;
    Some(((*start).max(first).into(), what))
}

/// Consecutive addresses of one family, written `10.1.0.64/28`, `10.1.0.64-10.1.0.70`, `10.1.0.64` or
/// `fd00::/124`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Returns the address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl AddressRange {
    /// Returns the range of one address.
    #[must_use]
    pub const fn one(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// Returns the first and the last address.
    #[must_use]
    pub const fn ends(self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    /// Returns the number of addresses, saturating at `u64::MAX`.
    #[must_use]
    pub fn count(self) -> u64 {
        let more = number(self.last) - number(self.first);
        u64::try_from(more).map_or(u64::MAX, |more| more.saturating_add(1))
    }

    /// Returns the address at the index, or the last address if the index is beyond it.
    #[must_use]
    pub fn nth(self, index: u64) -> IpAddr {
        let number = number(self.first).saturating_add(u128::from(index));
        let number = number.min(self::number(self.last));
        match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// Returns the number of addresses of the range after `address`, which the range must contain. The number saturates
    /// at `u64::MAX`.
    #[must_use]
    pub fn count_after(self, address: IpAddr) -> u64 {
        let more = number(self.last).saturating_sub(number(address));
        u64::try_from(more).unwrap_or(u64::MAX)
    }

    /// Returns all addresses in ascending order.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (number(self.first), number(self.last));
        (first..=last).map(move |number| match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        })
    }

    /// Returns true if the range contains the address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Returns true if both ranges contain a common address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let wrong = || {
            format!(
                "{shown:?} is not a range of addresses: write 10.1.0.64/28, 10.1.0.64-10.1.0.70, \
                 10.1.0.64 or fd00::/124"
            )
        };
        if text.contains('/') {
            let net: IpNet = text.parse().map_err(|_| wrong())?;
            if net.trunc() != net {
                return Err(format!(
                    "{text} has bits set beyond its prefix: write {}",
                    net.trunc()
                ));
            }
            return Ok(Self {
                first: net.network(),
                last: net.broadcast(),
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: IpAddr = first.trim().parse().map_err(|_| wrong())?;
        let last: IpAddr = last.trim().parse().map_err(|_| wrong())?;
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!(
                "{text} begins in one address family and ends in the other: write a range of one family"
            ));
        }
        if first > last {
            return Err(format!(
                "{text} ends before it begins: write the lower address first"
            ));
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        let bits = if first.is_ipv4() { 32 } else { 128 };
        // The range is a prefix if its size is a power of two and its start is a multiple of the size.
        let host_bits = number(first) ^ number(last);
        let block = host_bits.wrapping_add(1) & host_bits == 0 && number(first) & host_bits == 0;
        let text = if first == last {
            first.to_string()
        } else if block {
            format!("{first}/{}", bits - (128 - host_bits.leading_zeros()))
        } else {
            format!("{first}-{last}")
        };
        f.pad(&text)
    }
}

schema::schemas! {
    AddressRange, "AddressRange",
        schema::text("`10.1.0.64/28`, `10.1.0.64-10.1.0.70`, `10.1.0.64` or `fd00::/124`")
            .pattern(Some("^[0-9a-fA-F.:/-]{2,80}$"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_parsed_and_displayed() {
        for text in [
            "10.1.0.64/28",
            "10.1.0.5",
            "10.1.0.5-10.1.0.7",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "fd00::/124",
            "::/0",
            "fd00::5",
        ] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("10.1.0.64-10.1.0.79").to_string(), "10.1.0.64/28");
        assert_eq!(range("10.1.0.64/28").count(), 16);
        assert_eq!(range("10.1.0.1-10.1.0.3").iter().count(), 3);
        assert!(range("10.1.0.0/24").overlaps(range("10.1.0.255")));
        assert!(!range("10.1.0.0/24").overlaps(range("10.1.1.0/24")));
    }

    #[test]
    fn malformed_ranges_are_refused_with_a_message() {
        for (text, says) in [
            ("", "is not a range"),
            ("10.1.0.65/28", "write 10.1.0.64/28"),
            ("10.1.0.0/33", "is not a range"),
            ("10.1.0.9-10.1.0.3", "ends before it begins"),
            ("fd00::-10.0.0.1", "in one address family"),
            ("fd00::1/64", "write fd00::/64"),
        ] {
            let refusal = text.parse::<AddressRange>().unwrap_err();
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
    }

    #[test]
    fn special_addresses_follow_the_iana_registries() {
        for good in [
            "1.0.0.0",
            "10.0.0.9",
            "100.64.0.1",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.16.0.1",
            "191.255.255.255",
            "192.0.0.9",
            "192.0.1.0",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "223.255.255.255",
            "::1:0:0",
            "::ffff:0:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "fd00::5",
            "fe7f:ffff::1",
            "fec0::1",
        ] {
            let address = good.parse().unwrap();
            assert_eq!(check_host("addresses", address), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("0.0.0.0", "this network"),
            ("0.255.255.255", "this network"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("169.254.0.0", "link-local"),
            ("169.254.255.255", "link-local"),
            ("224.0.0.0", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.0", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::10.0.0.1", "IPv4-compatible"),
            ("::ffff:10.0.0.1", "IPv4-mapped"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("ff00::", "multicast"),
            ("ff02::1", "multicast"),
        ] {
            let problem = check_host("addresses", bad.parse().unwrap()).unwrap_err();
            assert!(problem.detail.contains(says), "{bad}: {problem}");
        }
    }

    #[test]
    fn a_range_that_contains_a_reserved_address_is_refused() {
        for (text, says) in [
            ("126.255.255.255-128.0.0.0", "127.0.0.0 is a loopback"),
            ("10.0.0.0-192.0.0.1", "127.0.0.0 is a loopback"),
            ("169.253.0.0-169.254.0.7", "169.254.0.0 is a link-local"),
            ("0.0.0.0/0", "0.0.0.0 is of"),
            ("fe00::-fec0::", "fe80:: is a link-local"),
            ("::/0", ":: is unspecified"),
            ("::fffe:0:0-::1:0:0:0", "IPv4-mapped"),
        ] {
            let problem = check_hosts("pool[0]", range(text)).unwrap_err();
            assert!(problem.detail.contains(says), "{text}: {problem}");
        }
        assert_eq!(check_hosts("pool[0]", range("10.0.0.0/8")), Ok(()));
        assert_eq!(check_hosts("pool[0]", range("fd00::/8")), Ok(()));
    }
}
