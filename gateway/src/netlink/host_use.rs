//! Routes of the host, and the interfaces above others.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};

use crate::netlink::Netlink;

/// Route that is not the connected prefix of an address: a default route, or one through a router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// Index of the interface that the route leads through.
    pub ifindex: u32,
    /// Prefix of the destinations: address and length. `None` for a default route.
    pub destination: Option<(IpAddr, u8)>,
    /// Router. `None` if the destinations are on the link.
    pub router: Option<IpAddr>,
    /// True for a route of IPv6.
    pub is_ipv6: bool,
}

/// Interface, with those that it receives for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedInterface {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// Bridge or bond that the interface is a port of.
    pub controller: Option<u32>,
    /// Interface that this one, a VLAN for example, sends and receives through.
    pub lower: Option<u32>,
}

impl Netlink {
    /// Returns the host's routes but for connected prefixes, in all routing tables.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn host_routes(&self) -> Result<Vec<HostRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let _listing = self.listing.lock().await;
            let messages = self.route.route().get(request).execute();
            let messages = messages.try_collect::<Vec<_>>().await;
            let messages = messages.context("could not list the routes")?;
            routes.extend(messages.iter().flat_map(parse_route));
        }
        routes.sort();
        Ok(routes)
    }

    /// Returns all interfaces of this network namespace with their relations.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn stacked_interfaces(&self) -> Result<BTreeMap<u32, StackedInterface>> {
        let _listing = self.listing.lock().await;
        let messages = self.route.link().get().execute().try_collect::<Vec<_>>();
        let messages = messages.await.context("could not list the interfaces")?;
        let interfaces = messages.into_iter().map(parse_relations);
        Ok(interfaces.map(|found| (found.ifindex, found)).collect())
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// Returns the routes of a message, one for each next hop.
fn parse_route(message: &RouteMessage) -> Vec<HostRoute> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.protocol == RouteProtocol::Kernel {
        return Vec::new();
    }
    let length = header.destination_prefix_length;
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(found) => Some((address(found)?, length)),
            _ => None,
        });
    let destination = destination.filter(|_| length > 0);
    let mut hops = vec![hop(&message.attributes)];
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(others) = attribute {
            let others = others.iter();
            hops.extend(
                others.map(|other| (Some(other.interface_index), hop(&other.attributes).1)),
            );
        }
    }
    let routes = hops.into_iter().filter_map(|(ifindex, router)| {
        Some(HostRoute {
            ifindex: ifindex?,
            destination,
            router,
            is_ipv6: header.address_family == AddressFamily::Inet6,
        })
    });
    // A prefix that is on the link itself serves the link only.
    routes
        .filter(|route| route.destination.is_none() || route.router.is_some())
        .collect()
}

/// Returns the interface and the router that attributes name.
fn hop(attributes: &[RouteAttribute]) -> (Option<u32>, Option<IpAddr>) {
    let (mut ifindex, mut router) = (None, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(found) => router = address(found),
            _ => {}
        }
    }
    (ifindex, router)
}

fn parse_relations(message: LinkMessage) -> StackedInterface {
    let mut found = StackedInterface {
        name: String::new(),
        ifindex: message.header.index,
        controller: None,
        lower: None,
    };
    let (mut is_veth, mut is_elsewhere) = (false, false);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Controller(index) => found.controller = Some(index),
            LinkAttribute::Link(index) => found.lower = Some(index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    // The attribute names the peer of a veth.
    let is_own = !is_veth && !is_elsewhere && found.lower != Some(found.ifindex);
    found.lower = found.lower.filter(|index| is_own && *index != 0);
    found.controller = found.controller.filter(|index| *index != 0);
    found
}
