//! Interfaces.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use gateway_common::packet::Mac;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use rtnetlink::LinkUnspec;

use crate::netlink::Netlink;

/// How an XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttachment {
    /// By the driver.
    Native,
    /// By the kernel's generic code.
    Generic,
}

/// Other end of a veth pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VethPeer {
    /// The interface is no veth.
    #[default]
    None,
    /// In the same network namespace, with this number.
    SameNamespace(u32),
    /// In another network namespace.
    OtherNamespace,
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
    /// Whether it receives what is for any group.
    pub all_multicast: bool,
    /// How an XDP program is attached to it, if there is one.
    pub xdp: Option<XdpAttachment>,
    /// Other end, if it is a veth.
    pub peer: VethPeer,
    /// True if the interface receives through others: a bridge, a bond, a macvlan.
    pub is_stacked: bool,
}

impl Netlink {
    /// All interfaces of this network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = self.route.link().get().execute().try_collect::<Vec<_>>();
        let messages = messages.await.context("could not list the interfaces")?;
        Ok(messages.into_iter().filter_map(parse_link).collect())
    }

    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let request = self.route.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(message) => Ok(message.and_then(parse_link)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("could not look at {name}")),
        }
    }

    /// Makes an interface receive what is for any group: neighbour solicitations for the gateway's
    /// addresses go to groups that the host itself is no member of.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn receive_all_multicast(&self, ifindex: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(ifindex)
            .allmulticast(true)
            .build();
        let set = self.route.link().set(message).execute();
        set.await
            .with_context(|| format!("could not have interface {ifindex} receive multicast"))
    }
}

/// Returns whether interfaces of the kind receive through others.
fn is_stacked(info: &LinkInfo) -> bool {
    match info {
        LinkInfo::Kind(
            InfoKind::Bridge
            | InfoKind::Bond
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::IpVlan,
        ) => true,
        LinkInfo::Kind(InfoKind::Other(kind)) => kind == "team",
        _ => false,
    }
}

/// None for one without a name, which the kernel does not send.
fn parse_link(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        name: String::new(),
        ifindex: message.header.index,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        all_multicast: message.header.flags.contains(LinkFlags::Allmulti),
        xdp: None,
        peer: VethPeer::None,
        is_stacked: false,
    };
    let (mut is_veth, mut peer, mut elsewhere) = (false, None, false);
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
            LinkAttribute::Link(index) => peer = Some(index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
                link.is_stacked = info.iter().any(is_stacked);
            }
            _ => {}
        }
    }
    link.peer = match peer {
        Some(index) if is_veth && !elsewhere => VethPeer::SameNamespace(index),
        _ if is_veth => VethPeer::OtherNamespace,
        _ => VethPeer::None,
    };
    (!link.name.is_empty()).then_some(link)
}
