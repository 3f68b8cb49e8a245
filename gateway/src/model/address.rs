//! Addresses that a user may give to an endpoint, a backend or source NAT.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::Problem;

/// Refuses an address that no host can have.
///
/// # Errors
/// [`Code::Invalid`](crate::model::Code::Invalid), for the field.
pub fn check_host(field: &str, address: Ipv4Addr) -> Result<(), Problem> {
    let what = if address.is_unspecified() || address.octets()[0] == 0 {
        "of \"this network\" (0.0.0.0/8)"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.is_broadcast() || address.octets()[0] >= 240 {
        "a broadcast or reserved address"
    } else if address.is_link_local() {
        "a link-local address"
    } else {
        return Ok(());
    };
    Err(Problem::invalid(
        field,
        format!("{address} is {what}, which no host of a network can have"),
    ))
}

/// Consecutive IPv4 addresses, written `10.1.0.64/28`, `10.1.0.64-10.1.0.70` or `10.1.0.64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// Both ends, included.
    #[must_use]
    pub const fn ends(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.first, self.last)
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(u32::from(self.last) - u32::from(self.first)) + 1
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
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
                "{shown:?} is not an IPv4 range: write 10.1.0.64/28, 10.1.0.64-10.1.0.70 or 10.1.0.64"
            )
        };
        if text.contains('/') {
            let net: Ipv4Net = text.parse().map_err(|_| wrong())?;
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
        let first: Ipv4Addr = first.trim().parse().map_err(|_| wrong())?;
        let last: Ipv4Addr = last.trim().parse().map_err(|_| wrong())?;
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
        let (low, high) = (u32::from(first), u32::from(last));
        // A block if its size is a power of two and its start a multiple of it.
        let host_bits = low ^ high;
        let text = if first == last {
            first.to_string()
        } else if host_bits.wrapping_add(1) & host_bits == 0 && low & host_bits == 0 {
            format!("{first}/{}", host_bits.leading_zeros())
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
            ("", "is not an IPv4 range"),
            ("10.1.0.65/28", "write 10.1.0.64/28"),
            ("10.1.0.0/33", "is not an IPv4 range"),
            ("10.1.0.9-10.1.0.3", "ends before it begins"),
            ("fd00::/64", "is not an IPv4 range"),
        ] {
            let refusal = text.parse::<AddressRange>().unwrap_err();
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["10.0.0.9", "192.0.2.1", "100.64.0.1"] {
            assert_eq!(check_host("addresses", good.parse().unwrap()), Ok(()));
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.5",
            "255.255.255.255",
            "169.254.1.1",
        ] {
            assert!(
                check_host("addresses", bad.parse().unwrap()).is_err(),
                "{bad}"
            );
        }
    }
}
