//! Addresses of this host at the time of an outbound call.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Addresses of the interfaces in the network namespace of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceAddresses(BTreeSet<IpAddr>);

impl InterfaceAddresses {
    /// Reads the addresses from the kernel (`getifaddrs`).
    ///
    /// # Errors
    /// Fails if `getifaddrs` fails.
    pub fn read() -> io::Result<Self> {
        let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
        // SAFETY: the function writes the head of the list to `first`. The list is freed below.
        if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut addresses = BTreeSet::new();
        let mut next = first;
        while !next.is_null() {
            // SAFETY: `next` is an element of the list, and elements are valid until `freeifaddrs`.
            let entry = unsafe { &*next };
            // SAFETY: the element's address is null, or valid for as long as the element.
            if let Some(address) = unsafe { parse_sockaddr(entry.ifa_addr) } {
                addresses.insert(address.to_canonical());
            }
            next = entry.ifa_next;
        }
        // SAFETY: `first` came from `getifaddrs` and is freed only here. No reference into the list exists any more.
        unsafe { libc::freeifaddrs(first) };
        Ok(Self(addresses))
    }

    /// Returns true if the address belongs to this host: an interface has it, or a route delivers it locally.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.contains(&address) || is_routed_to_host(address)
    }
}

/// Returns the IP address of a socket address, if it is one of IPv4 or IPv6.
///
/// # Safety
/// The pointer is null, or points to a socket address of the length that its family demands.
unsafe fn parse_sockaddr(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the pointer is valid, and every socket address begins with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family is that of an IPv4 socket address, and the read needs no alignment.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family is that of an IPv6 socket address, and the read needs no alignment.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Returns true if a route of type `local` delivers the address to this host, although no interface has it.
///
/// The kernel selects the destination address itself as the source address of such packets, which shows on a connected
/// UDP socket. No packet is sent.
fn is_routed_to_host(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    // An unreachable address does not belong to this host.
    source().is_ok_and(|source| source.to_canonical() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_a_host_address_and_documentation_addresses_are_not() {
        let addresses = InterfaceAddresses::read().unwrap();
        assert!(addresses.contains("127.0.0.1".parse().unwrap()));
        assert!(addresses.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!addresses.contains("192.0.2.77".parse().unwrap()));
        assert!(!addresses.contains("2001:db8::77".parse().unwrap()));
    }
}
