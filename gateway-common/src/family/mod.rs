//! The address families: the differences between IPv4 and IPv6 in addresses, headers and checksums. All other code
//! is written once, generic over [`Family`].

mod header;
mod v4;
mod v6;

use core::{fmt::Debug, hash::Hash};

use bytemuck::Pod;

use crate::{address::IpAddress, byte_order::Be16, checksum::Sum, packet::Mac};

pub use header::Header;
pub use v4::V4;
pub use v6::V6;

/// An address family.
pub trait Family: Copy + Debug + Default + Eq + Hash + Ord + 'static {
    /// Address type, as in headers and flow entries.
    type Address: Pod + Copy + Debug + Default + Eq + Hash + Ord;
    /// Header type.
    type Header: Header<Address = Self::Address>;
    /// IP protocol number of ICMP or ICMPv6.
    const ICMP: u8;
    /// Maximum length of an ICMP error in bytes, including the IP header (RFC 1812, section 4.3.2.3; RFC 4443, section
    /// 2.4).
    const MAX_ICMP_ERROR_LEN: u16;
    /// Checksum delta of a header whose TTL is decremented.
    const TTL_DECREMENT_DELTA: u16;
    /// Number of 32-bit words of an address.
    const ADDRESS_WORDS: usize;

    /// Returns a 32-bit word of an address, as loaded.
    fn address_word(address: Self::Address, index: usize) -> u32;
    /// Returns the address with these 32-bit words, of which an IPv4 address has one.
    fn address_from_words(words: [u32; 4]) -> Self::Address;

    /// Returns the address in the form that configuration maps are keyed by: IPv4 as an IPv4-mapped address.
    fn to_mapped(address: Self::Address) -> IpAddress;
    /// Returns the address if it is of this family.
    fn from_mapped(address: IpAddress) -> Option<Self::Address>;
    /// Returns true if a host can have the address: it is neither unspecified, loopback, multicast, broadcast nor
    /// otherwise reserved (RFC 1122, section 3.2.1.3; RFC 6890).
    fn is_unicast(address: Self::Address) -> bool;
    /// Returns true if the address is valid on its own link only (RFC 3927; RFC 4291, section 2.5.6).
    fn is_link_local(address: Self::Address) -> bool;
    /// Returns true if no packet to `destination` can come from `source` (RFC 1812, section 5.3.7): the source is not
    /// unicast, or equals the destination.
    #[inline(always)]
    fn is_martian(source: Self::Address, destination: Self::Address) -> bool {
        !Self::is_unicast(source) || source == destination
    }
    /// Adds an address to a checksum's sum.
    fn add_to_sum(sum: Sum, address: Self::Address) -> Sum;
    /// Adds the delta of replacing one address by another.
    fn replace_in_sum(sum: Sum, old: Self::Address, new: Self::Address) -> Sum;
    /// Mixes an address into a hash.
    fn mix_into_hash(hash: u64, address: Self::Address) -> u64;
    /// Returns the address as this family's flow tables hold it. The tables of IPv6 hold IPv4-mapped addresses too.
    fn to_table_addr(address: IpAddress) -> Option<Self::Address>;
}

/// Returns the sum over the pseudo header of TCP, UDP and ICMPv6 (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline(always)]
#[must_use]
pub fn pseudo_header<F: Family>(
    source: F::Address,
    destination: F::Address,
    protocol: u8,
    length: u16,
) -> Sum {
    F::add_to_sum(F::add_to_sum(Sum::ZERO, source), destination)
        .add_be16(Be16::new(u16::from(protocol)))
        .add_be16(Be16::new(length))
}

/// The MAC address of the multicast group of all nodes, ff02::1 (RFC 2464, section 7).
pub const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{byte_order::Be32, checksum};

    fn v6(text: &str) -> IpAddress {
        text.parse::<core::net::Ipv6Addr>().unwrap().into()
    }

    fn v4(text: &str) -> Be32 {
        text.parse::<core::net::Ipv4Addr>().unwrap().into()
    }

    /// Special-purpose addresses (RFC 6890 and its registries), and whether they are unicast and link-local.
    #[test]
    fn special_purpose_addresses_are_classified() {
        for (text, unicast, link_local) in [
            ("0.0.0.0", false, false),
            ("0.255.255.255", false, false),
            ("1.0.0.0", true, false),
            ("10.0.0.5", true, false),
            ("100.64.0.1", true, false),
            ("126.255.255.255", true, false),
            ("127.0.0.1", false, false),
            ("127.255.255.255", false, false),
            ("128.0.0.0", true, false),
            ("169.253.255.255", true, false),
            ("169.254.0.0", true, true),
            ("169.254.255.255", true, true),
            ("169.255.0.0", true, false),
            ("192.0.2.1", true, false),
            ("198.18.0.1", true, false),
            ("198.51.100.1", true, false),
            ("203.0.113.1", true, false),
            ("223.255.255.255", true, false),
            ("224.0.0.0", false, false),
            ("239.255.255.255", false, false),
            ("240.0.0.0", false, false),
            ("255.255.255.255", false, false),
        ] {
            let address = v4(text);
            let actual = (V4::is_unicast(address), V4::is_link_local(address));
            assert_eq!(actual, (unicast, link_local), "{text}");
        }
        for (text, unicast, link_local) in [
            ("::", false, false),
            ("::1", false, false),
            ("::10.0.0.5", false, false),
            ("::ffff:10.0.0.5", false, false),
            ("::ffff:0:10.0.0.5", true, false),
            ("64:ff9b::a00:5", true, false),
            ("64:ff9b:1::1", true, false),
            ("2001:db8::1", true, false),
            ("2002:a00:5::1", true, false),
            ("fd00::5", true, false),
            ("fe7f:ffff::1", true, false),
            ("fe80::", true, true),
            ("febf:ffff::1", true, true),
            // Site-local addresses are treated as global ones (RFC 3879, section 4).
            ("fec0::1", true, false),
            ("feff::1", true, false),
            ("ff00::", false, false),
            ("ff02::1", false, false),
            ("ffff::1", false, false),
        ] {
            let address = v6(text);
            let actual = (V6::is_unicast(address), V6::is_link_local(address));
            assert_eq!(actual, (unicast, link_local), "{text}");
        }
    }

    #[test]
    fn equal_source_and_destination_is_martian() {
        assert!(!V4::is_martian(v4("10.0.0.5"), v4("10.0.0.100")));
        assert!(V4::is_martian(v4("10.0.0.100"), v4("10.0.0.100")));
        assert!(!V6::is_martian(v6("fd00::5"), v6("fd00::100")));
        assert!(V6::is_martian(v6("fd00::100"), v6("fd00::100")));
    }

    #[test]
    fn replace_in_sum_equals_recomputed_sum() {
        let (old, new) = (v6("fd00::5"), v6("2001:db8:1:2:3:4:5:6"));
        let before = V6::add_to_sum(Sum::ZERO.add_word(0x1234), old).checksum();
        let after = V6::add_to_sum(Sum::ZERO.add_word(0x1234), new).checksum();
        let delta = V6::replace_in_sum(Sum::ZERO, old, new).fold();
        assert_eq!(checksum::update(before, delta), after);
    }
}
