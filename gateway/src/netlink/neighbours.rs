//! Next hops, and the kernel's neighbour table. The agent resolves neighbours itself, and only reads the table.

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

/// Entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelNeighbour {
    /// MAC address, if the kernel would use it.
    pub mac: Option<Mac>,
    /// True if the operator has configured the entry.
    pub is_static: bool,
    /// True if the neighbour answered recently.
    pub is_confirmed: bool,
    /// True if the kernel keeps the entry resolved (`NTF_EXT_MANAGED`).
    pub is_managed: bool,
}

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

    /// Deletes a neighbour entry. The absence of the entry is no error, since it disappears with its interface.
    pub async fn delete_neighbour(&self, ifindex: u32, address: IpAddr) {
        let message = neighbour_message(ifindex, address);
        if let Err(error) = self.route.neighbours().del(message).execute().await {
            log::debug!(
                "netlink: neighbour not deleted address={address} ifindex={ifindex} error={error}"
            );
        }
    }

    /// Returns the kernel's entry of the neighbour, if there is one.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn neighbour(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> Result<Option<KernelNeighbour>> {
        let message = RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, address));
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.route.clone().request(request)?;
        let Some(answer) = answers.next().await else {
            return Ok(None);
        };
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                Ok(parse_neighbour(message).map(|(_, entry)| entry))
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

    /// Returns the kernel's entries of all neighbours, by interface index and address.
    ///
    /// # Errors
    /// Fails if the kernel refuses the request.
    pub async fn neighbours(&self) -> Result<HashMap<(u32, IpAddr), KernelNeighbour>> {
        let mut known = HashMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.route.neighbours().get().set_address_family(family);
            let _listing = self.listing.lock().await;
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

/// Parses a message about a neighbour.
fn parse_neighbour(message: NeighbourMessage) -> Option<((u32, IpAddr), KernelNeighbour)> {
    let state = message.header.state;
    let is_static = matches!(state, NeighbourState::Noarp | NeighbourState::Permanent);
    let is_confirmed = state == NeighbourState::Reachable;
    let is_resolved = is_static
        || is_confirmed
        || matches!(
            state,
            NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
        );
    let (mut address, mut mac, mut is_managed) = (None, None, false);
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
            NeighbourAttribute::ExtFlags(flags) => {
                is_managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let entry = KernelNeighbour {
        mac: mac.filter(|_| is_resolved),
        is_static,
        is_confirmed,
        is_managed,
    };
    Some(((message.header.ifindex, address?), entry))
}
