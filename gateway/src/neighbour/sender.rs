//! Sender addresses of solicitations.
//!
//! The neighbour answers to the sender address, so the network must have it. A host that selects the address by the
//! packet that waits, as Linux does by default (`arp_announce`), may use one of another network.

use std::net::IpAddr;

use ipnet::IpNet;

/// Address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Addresses that are on the same link.
    pub prefix: IpNet,
    /// True if the address may be used: duplicate address detection has not yet to be passed, nor has it failed.
    pub is_usable: bool,
}

/// Sender address of a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Address of the interface, or a SNAT address of the network.
    Address(IpAddr),
    /// None: the solicitation is an ARP probe (RFC 5227, section 1.1), which is answered all the same.
    Unspecified,
    /// None, and none is allowed to be missing (RFC 4861, section 7.2.2): nothing can be sent.
    Missing,
    /// None, because the interface can't be used: nothing can be sent.
    UnusableInterface,
}

impl Sender {
    /// Returns true if a solicitation can be sent.
    #[must_use]
    pub const fn can_send(self) -> bool {
        match self {
            Self::Address(_) | Self::Unspecified => true,
            Self::Missing | Self::UnusableInterface => false,
        }
    }
}

/// Selects the sender address for a neighbour from the addresses of the interface: one on the same link, or for IPv6
/// the link-local one; else a SNAT address of the network.
pub fn select_sender(
    neighbour: IpAddr,
    own: &[InterfaceAddress],
    snat: impl FnOnce() -> Option<IpAddr>,
) -> Sender {
    let usable = own.iter().filter(|own| own.is_usable);
    let same_link = usable
        .clone()
        .filter(|own| own.prefix.contains(&neighbour))
        .max_by_key(|own| own.prefix.prefix_len());
    let link_local = || usable.clone().find(|own| is_ipv6_link_local(own.address));
    let own = if neighbour.is_ipv6() {
        same_link.or_else(link_local)
    } else {
        same_link
    };
    match own.map(|own| own.address).or_else(snat) {
        Some(address) => Sender::Address(address),
        None if neighbour.is_ipv4() => Sender::Unspecified,
        None => Sender::Missing,
    }
}

const fn is_ipv6_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(address: &str) -> InterfaceAddress {
        let prefix: IpNet = address.parse().unwrap();
        InterfaceAddress {
            ifindex: 4,
            address: prefix.addr(),
            prefix: prefix.trunc(),
            is_usable: true,
        }
    }

    fn select(neighbour: &str, own: &[InterfaceAddress], snat: Option<&str>) -> Sender {
        let snat = snat.map(|address| address.parse().unwrap());
        select_sender(neighbour.parse().unwrap(), own, || snat)
    }

    fn address(address: &str) -> Sender {
        Sender::Address(address.parse().unwrap())
    }

    #[test]
    fn address_on_the_same_link_comes_first() {
        let own = [own("192.168.9.1/24"), own("10.0.0.1/8"), own("10.1.0.1/24")];
        assert_eq!(
            select("10.1.0.10", &own, Some("10.1.0.64")),
            address("10.1.0.1")
        );
        assert_eq!(select("10.2.0.10", &own, None), address("10.0.0.1"));
    }

    #[test]
    fn snat_address_stands_in_for_a_missing_one() {
        let other = [own("192.168.9.1/24")];
        assert_eq!(
            select("10.1.0.10", &other, Some("10.1.0.64")),
            address("10.1.0.64")
        );
        assert_eq!(select("10.1.0.10", &other, None), Sender::Unspecified);
    }

    #[test]
    fn ipv6_uses_the_link_local_address_and_never_none() {
        let local = own("fe80::1/64");
        let both = [local, own("fd00::1/64")];
        assert_eq!(select("fd00::10", &both, None), address("fd00::1"));
        assert_eq!(
            select("fd01::10", &both, Some("fd01::64")),
            address("fe80::1")
        );
        assert_eq!(select("fe80::99", &both, None), address("fe80::1"));
        let tentative = InterfaceAddress {
            is_usable: false,
            ..local
        };
        let snat = Some("fd01::64");
        assert_eq!(select("fd01::10", &[tentative], snat), address("fd01::64"));
        assert_eq!(select("fd01::10", &[], None), Sender::Missing);
    }
}
