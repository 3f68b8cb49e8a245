//! Interfaces of the host.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use gateway_common::packet::Mac;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use rtnetlink::LinkUnspec;

use crate::netlink::Netlink;

/// Mode of the XDP program that is attached to an interface, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttachment {
    /// The driver or the device runs the program.
    Native,
    /// The network stack runs the program.
    Generic,
}

/// Location of the other interface of a veth pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VethPeer {
    /// The interface is not a veth.
    #[default]
    None,
    /// In the same network namespace, with this interface index.
    SameNamespace(u32),
    /// In another network namespace.
    OtherNamespace,
}

/// An interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// MAC address, if it has the length of an Ethernet address.
    pub mac: Option<Mac>,
    /// Largest IP packet that the interface takes, in bytes.
    pub mtu: u32,
    /// True if the interface was set up (IFF_UP).
    pub admin_up: bool,
    /// True if the interface can carry frames: it was set up, and has a carrier (IFF_LOWER_UP, and not IFF_DORMANT).
    pub up: bool,
    /// Number of times that the interface has got its carrier, by which a short loss is seen afterwards.
    pub carrier_ups: u32,
    /// True if the interface receives all multicast frames.
    pub all_multicast: bool,
    /// Mode of the attached XDP program, if there is one.
    pub xdp: Option<XdpAttachment>,
    /// Location of the peer, if the interface is a veth.
    pub peer: VethPeer,
    /// True if the interface receives through other interfaces: a bridge, a bond, a macvlan.
    pub is_stacked: bool,
}

impl Netlink {
    /// Returns all interfaces of this network namespace.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let _listing = self.listing.lock().await;
        let messages = self.route.link().get().execute().try_collect::<Vec<_>>();
        let messages = messages.await.context("could not list the interfaces")?;
        Ok(messages.into_iter().filter_map(parse_link).collect())
    }

    /// Returns the interface with this name, if it exists.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let request = self.route.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(message) => Ok(message.and_then(parse_link)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("could not read interface {name}")),
        }
    }

    /// Makes an interface receive all multicast frames.
    ///
    /// Neighbour solicitations for the gateway's addresses are sent to multicast groups that the host itself has not
    /// joined.
    ///
    /// # Errors
    /// Fails if the kernel refuses the change.
    pub async fn receive_all_multicast(&self, ifindex: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(ifindex)
            .allmulticast(true)
            .build();
        let set = self.route.link().set(message).execute();
        set.await.with_context(|| {
            format!("could not make interface {ifindex} receive all multicast frames")
        })
    }
}

/// Returns true if interfaces of the kind receive through other interfaces.
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

/// Returns true if the interface was set up, and has a carrier that is ready (RFC 2863, section 3.1.12: not dormant).
fn is_operational(flags: LinkFlags) -> bool {
    flags.contains(LinkFlags::Up | LinkFlags::LowerUp) && !flags.contains(LinkFlags::Dormant)
}

/// Parses a message about an interface. Returns `None` if it has no name, which the kernel does not send.
fn parse_link(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        name: String::new(),
        ifindex: message.header.index,
        mac: None,
        mtu: 0,
        admin_up: message.header.flags.contains(LinkFlags::Up),
        up: is_operational(message.header.flags),
        carrier_ups: 0,
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
            LinkAttribute::CarrierUpCount(count) => link.carrier_ups = count,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_is_operational_with_a_carrier_only() {
        let (up, carrier) = (LinkFlags::Up, LinkFlags::LowerUp);
        assert!(is_operational(up | carrier | LinkFlags::Running));
        assert!(!is_operational(up));
        assert!(!is_operational(carrier));
        assert!(!is_operational(up | carrier | LinkFlags::Dormant));
    }

    #[test]
    fn carrier_and_its_changes_are_parsed() {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::CarrierUpCount(3),
        ];
        let link = parse_link(message).unwrap();
        assert!(link.admin_up && !link.up);
        assert_eq!(link.carrier_ups, 3);
    }
}
