//! Addresses that a user may give to an endpoint, a backend or source NAT.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::Problem;

/// Refuses an address that no host can have.
///
/// # Errors
/// [`Code::Invalid`](crate::model::Code::Invalid), for the field.
pub fn check_host(field: &str, address: IpAddr) -> Result<(), Problem> {
    let what = match address {
        IpAddr::V4(address) => unfit_v4(address),
        IpAddr::V6(address) => unfit_v6(address),
    };
    match what {
        None => Ok(()),
        Some(what) => Err(Problem::invalid(
            field,
            format!("{address} is {what}, which no host of a network can have"),
        )),
    }
}

fn unfit_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("of \"this network\" (0.0.0.0/8)")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.octets()[0] >= 240 {
        Some("a broadcast or reserved address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else {
        None
    }
}

fn unfit_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("an IPv4-mapped address")
    } else if address.segments()[..6] == [0; 6] {
        Some("unspecified, loopback or IPv4-compatible (::/96)")
    } else {
        None
    }
}

/// Consecutive addresses of one family, written `10.1.0.64/28`, `10.1.0.64-10.1.0.70`, `10.1.0.64` or
/// `fd00::/124`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// The address as a number, for counting.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl AddressRange {
    /// Both ends, included.
    #[must_use]
    pub const fn ends(self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    /// How many addresses there are; the largest number where there are more than it tells.
    #[must_use]
    pub fn count(self) -> u64 {
        let more = number(self.last) - number(self.first);
        u64::try_from(more).map_or(u64::MAX, |more| more.saturating_add(1))
    }

    /// The address at the place, counted from 0; the last one for all places behind.
    #[must_use]
    pub fn nth(self, place: u64) -> IpAddr {
        let number = number(self.first).saturating_add(u128::from(place));
        let number = number.min(self::number(self.last));
        match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (number(self.first), number(self.last));
        (first..=last).map(move |number| match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        })
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether both have an address in common.
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
                "{text} begins in one address family and ends in the other"
            ));
        }
        if first > last {
            return Err(format!("{text} ends before it begins"));
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
        // A block if its size is a power of two and its start a multiple of it.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn each_form_reads_and_prints() {
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
    fn nonsense_is_refused_with_a_sentence() {
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
    fn hosts() {
        for good in [
            "10.0.0.9",
            "192.0.2.1",
            "100.64.0.1",
            "fd00::5",
            "2001:db8::1",
        ] {
            assert_eq!(check_host("addresses", good.parse().unwrap()), Ok(()));
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.5",
            "255.255.255.255",
            "169.254.1.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(
                check_host("addresses", bad.parse().unwrap()).is_err(),
                "{bad}"
            );
        }
    }
}
