//! Interfaces.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use gateway_common::packet::Mac;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached};

use crate::netlink::Netlink;

/// How an XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttachment {
    /// By the driver.
    Native,
    /// By the kernel's generic code.
    Generic,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub ifindex: u32,
    /// Its hardware address, if it is one of Ethernet.
    pub mac: Option<Mac>,
    /// The largest IP packet that it takes, in bytes.
    pub mtu: u32,
    /// Whether it was switched on.
    pub up: bool,
    /// How an XDP program is attached to it, if there is one.
    pub xdp: Option<XdpAttachment>,
}

impl Netlink {
    /// All interfaces of this network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = self.route.link().get().execute().try_collect::<Vec<_>>();
        let messages = messages.await.context("could not list the interfaces")?;
        Ok(messages.into_iter().filter_map(read).collect())
    }
}

/// None for one without a name, which the kernel does not send.
fn read(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        name: String::new(),
        ifindex: message.header.index,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        xdp: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac::new);
            }
            LinkAttribute::Xdp(xdp) => {
                link.xdp = xdp.iter().find_map(|attribute| match attribute {
                    LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => {
                        Some(XdpAttachment::Native)
                    }
                    LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpAttachment::Generic),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}
