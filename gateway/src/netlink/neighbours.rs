//! Next hops and the MAC addresses of neighbours.
//!
//! The kernel resolves neighbours and keeps them fresh: the agent's entries are "managed" (Linux 5.16), and the kernel
//! refreshes such entries for as long as they exist.

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gateway_common::packet::Mac;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::RouteMessageBuilder;

use crate::netlink::Netlink;

impl Netlink {
    /// Returns the address of the next hop for packets that leave by the interface.
    ///
    /// The next hop is the router of the route through this interface, or else the address itself. Without a route the
    /// address counts as directly reachable: its network is the one behind the interface, even if the host has no route
    /// to it.
    ///
    /// # Errors
    /// Fails if no request can be built for the address.
    pub async fn next_hop(&self, ifindex: u32, address: IpAddr) -> Result<IpAddr> {
        let message = route_to(address)?.output_interface(ifindex).build();
        let routes = self.routes(message).await.unwrap_or_default();
        let mut attributes = routes.iter().flat_map(|route| &route.attributes);
        let gateway = attributes.find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(IpAddr::V4(*gateway)),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => Some(IpAddr::V6(*gateway)),
            _ => None,
        });
        Ok(gateway.unwrap_or(address))
    }

    /// Returns true if the host's routes lead to the address through the interface.
    pub async fn routes_through(&self, ifindex: u32, address: IpAddr) -> bool {
        let Ok(message) = route_to(address) else {
            return false;
        };
        self.routes(message.build()).await.is_ok_and(|routes| {
            let mut attributes = routes.iter().flat_map(|route| &route.attributes);
            attributes.any(|attribute| *attribute == RouteAttribute::Oif(ifindex))
        })
    }

    async fn routes(&self, message: RouteMessage) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
        self.route
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
    }

    /// Adds a managed neighbour entry: the kernel resolves the neighbour's MAC address and keeps it fresh.
    ///
    /// # Errors
    /// Fails if the kernel refuses the entry.
    pub async fn manage_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        let mut request = self
            .route
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .replace();
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        request.message_mut().attributes.push(managed);
        request.execute().await.with_context(|| {
            format!("could not add a managed neighbour {address} on interface {ifindex}")
        })
    }

    /// Deletes a neighbour entry. The absence of the entry is no error, since it disappears with its interface.
    pub async fn delete_neighbour(&self, ifindex: u32, address: IpAddr) {
        let message = neighbour_message(ifindex, address);
        if let Err(error) = self.route.neighbours().del(message).execute().await {
            log::debug!(
                "netlink: neighbour not deleted address={address} ifindex={ifindex} error={error}"
            );
        }
    }

    /// Returns the neighbour's MAC address, if it is resolved.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<Mac>> {
        let message = RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, address));
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.route.clone().request(request)?;
        let Some(answer) = answers.next().await else {
            return Ok(None);
        };
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                Ok(parse_neighbour(message).map(|(_, mac)| mac))
            }
            NetlinkPayload::Error(error)
                if [-libc::ENOENT, -libc::ENODEV].contains(&error.raw_code()) =>
            {
                Ok(None)
            }
            NetlinkPayload::Error(error) => Err(error.to_io()).with_context(|| {
                format!("could not read neighbour {address} on interface {ifindex}")
            }),
            _ => {
                bail!("the kernel sent no neighbour message about {address} on interface {ifindex}")
            }
        }
    }

    /// Returns the MAC addresses of all resolved neighbours, by interface index and address.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn neighbours(&self) -> Result<HashMap<(u32, IpAddr), Mac>> {
        let mut known = HashMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.route.neighbours().get().set_address_family(family);
            let messages = request.execute().try_collect::<Vec<_>>();
            let messages = messages.await.context("could not list the neighbours")?;
            known.extend(messages.into_iter().filter_map(parse_neighbour));
        }
        Ok(known)
    }
}

/// Builds a message about a neighbour.
fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = ifindex;
    let destination = NeighbourAttribute::Destination(destination);
    message.attributes.push(destination);
    message
}

/// Begins a request for the route to an address.
fn route_to(address: IpAddr) -> Result<RouteMessageBuilder<IpAddr>> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Ok(RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits)?)
}

/// Returns the entry's key and MAC address, if the neighbour is resolved.
fn parse_neighbour(message: NeighbourMessage) -> Option<((u32, IpAddr), Mac)> {
    let valid = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent
    );
    if !valid {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes).ok().map(Mac::new);
            }
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac?))
}
