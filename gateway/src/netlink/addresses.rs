//! Addresses of the host.

use std::{ffi::CStr, net::IpAddr};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use crate::netlink::Netlink;

/// Address of an interface as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// Index of the interface.
    pub ifindex: u32,
    /// The interface's own address.
    pub address: IpAddr,
    /// Addresses that are on the link, if the kernel reports a valid prefix.
    pub prefix: Option<IpNet>,
    /// True if duplicate address detection does not stand in the way of using the address.
    pub is_usable: bool,
}

impl Netlink {
    /// Returns the addresses of all interfaces of this network namespace.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn addresses(&self) -> Result<Vec<HostAddress>> {
        let _listing = self.listing.lock().await;
        let messages = self.route.address().get().execute();
        let messages = messages.try_collect::<Vec<_>>().await;
        let messages = messages.context("could not list the host's addresses")?;
        Ok(messages.iter().filter_map(parse_address).collect())
    }
}

/// Returns the name of the interface with this index, if it exists.
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    let mut buffer = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the function demands, and the function writes a NUL-terminated string.
    let found = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the returned pointer points into the buffer, which holds a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(found) };
    name.to_str().ok().map(str::to_owned)
}

/// Parses a message about an address.
///
/// On a point-to-point link the attribute `IFA_ADDRESS` holds the peer's address, and `IFA_LOCAL` the interface's own.
/// The prefix is that of the former. Messages about other links may have `IFA_ADDRESS` only.
fn parse_address(message: &AddressMessage) -> Option<HostAddress> {
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    let address = local.or(peer)?;
    let prefix = IpNet::new(peer.unwrap_or(address), message.header.prefix_len);
    // An optimistic address is used before its detection has ended (RFC 4429).
    let is_tentative =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    Some(HostAddress {
        ifindex: message.header.index,
        address,
        prefix: prefix.ok().map(|prefix| prefix.trunc()),
        is_usable: !is_tentative && !flags.contains(AddressFlags::Dadfailed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_attribute_wins_over_the_peer_address() {
        let (near, far): (IpAddr, IpAddr) =
            ("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap());
        let parse = |attributes| {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.header.prefix_len = 30;
            message.attributes = attributes;
            parse_address(&message)
        };
        let found = parse(vec![
            AddressAttribute::Address(far),
            AddressAttribute::Local(near),
        ])
        .unwrap();
        assert_eq!((found.ifindex, found.address), (7, near));
        assert_eq!(found.prefix, "10.1.0.0/30".parse().ok());
        assert!(found.is_usable);
        let tentative = AddressAttribute::Flags(AddressFlags::Tentative);
        let found = parse(vec![AddressAttribute::Address(near), tentative]).unwrap();
        assert_eq!((found.address, found.is_usable), (near, false));
        assert_eq!(parse(Vec::new()), None);
    }
}
