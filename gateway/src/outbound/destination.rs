//! Addresses that tenants' webhooks may have. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 networks that are not globally reachable: the IANA special-purpose address registry (RFC 6890), multicast
/// (RFC 5771), and the relays of 6to4 (RFC 7526).
const NOT_GLOBAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];

/// Global unicast IPv6 addresses (RFC 4291, section 2.4).
///
/// All other addresses are refused: among them loopback, link-local and unique local addresses, multicast, IPv4-mapped
/// addresses, and the translation prefixes of RFC 6052 and RFC 8215.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Networks within [`GLOBAL_V6`] that are not globally reachable: protocol assignments (with Teredo), documentation
/// (RFC 3849, RFC 9637), and 6to4, which leads to IPv4 addresses (RFC 3056).
const NOT_GLOBAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Returns true if the address is globally reachable. An IPv4-mapped address counts as the IPv4 address in it.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !NOT_GLOBAL_V4
            .iter()
            .any(|(network, length)| contains_v4(*network, *length, v4)),
        IpAddr::V6(v6) => {
            contains_v6(GLOBAL_V6.0, GLOBAL_V6.1, v6)
                && !NOT_GLOBAL_V6
                    .iter()
                    .any(|(network, length)| contains_v6(*network, *length, v6))
        }
    }
}

fn contains_v4(network: Ipv4Addr, length: u8, address: Ipv4Addr) -> bool {
    Ipv4Net::new(network, length).is_ok_and(|network| network.contains(&address))
}

fn contains_v6(network: Ipv6Addr, length: u8, address: Ipv6Addr) -> bool {
    Ipv6Net::new(network, length).is_ok_and(|network| network.contains(&address))
}

/// Returns true if a webhook may have the address: a global one, or one in a network that the operator allows.
///
/// An address of this host is refused even if it is global or in an allowed network, because a call from the host
/// itself passes its firewall and is trusted as local. The operator can allow exactly this address (a prefix of 32 or
/// 128 bits).
#[must_use]
pub fn is_permitted(address: IpAddr, is_host_address: bool, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    let mut holding = networks.iter().filter(|network| network.contains(&address));
    if is_host_address {
        return holding.any(|network| network.prefix_len() == network.max_prefix_len());
    }
    holding.next().is_some() || is_global(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(address: &str, own: bool, networks: &[&str]) -> bool {
        let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
        is_permitted(address.parse().unwrap(), own, &networks)
    }

    #[test]
    fn only_global_addresses_are_permitted() {
        for global in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "3ffe::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(permitted(global, false, &[]), "{global}");
        }
        for other in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permitted(other, false, &[]), "{other}");
        }
    }

    #[test]
    fn networks_of_the_operator_are_permitted() {
        let allowed = ["10.0.0.0/8", "fd00::/8"];
        assert!(permitted("10.0.0.1", false, &allowed));
        assert!(permitted("::ffff:10.0.0.1", false, &allowed));
        assert!(permitted("fd00::1", false, &allowed));
        assert!(!permitted("127.0.0.1", false, &allowed));
    }

    #[test]
    fn host_addresses_need_an_exact_entry() {
        assert!(!permitted("8.8.8.8", true, &[]));
        assert!(!permitted("::ffff:8.8.8.8", true, &[]));
        assert!(!permitted("2606:4700::1111", true, &["2606:4700::/32"]));
        assert!(!permitted("127.0.0.1", true, &["127.0.0.0/8"]));
        assert!(permitted(
            "127.0.0.1",
            true,
            &["127.0.0.0/8", "127.0.0.1/32"]
        ));
        assert!(permitted("fd00::1", true, &["fd00::1/128"]));
    }
}
