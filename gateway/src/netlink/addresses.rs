//! Addresses of the host.

use std::{ffi::CStr, net::IpAddr};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use crate::netlink::Netlink;

impl Netlink {
    /// Returns the addresses of all interfaces of this network namespace, each with the index of its interface.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>> {
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

/// Returns the interface's own address.
///
/// On a point-to-point link the attribute `IFA_ADDRESS` holds the peer's address, and `IFA_LOCAL` the interface's own.
/// Messages about other links may have `IFA_ADDRESS` only.
fn parse_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = || {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    Some((message.header.index, local.or_else(address)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_attribute_wins_over_the_peer_address() {
        let (near, far): (IpAddr, IpAddr) =
            ("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap());
        let message = |attributes| {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.attributes = attributes;
            message
        };
        let both = message(vec![
            AddressAttribute::Address(far),
            AddressAttribute::Local(near),
        ]);
        assert_eq!(parse_address(&both), Some((7, near)));
        let one = message(vec![AddressAttribute::Address(near)]);
        assert_eq!(parse_address(&one), Some((7, near)));
        assert_eq!(parse_address(&message(Vec::new())), None);
    }
}
