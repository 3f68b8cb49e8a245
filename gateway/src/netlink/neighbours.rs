//! Next hops and their hardware addresses. The kernel resolves and keeps them: entries are
//! "managed" (Linux 5.16), which it refreshes by itself as long as they exist.

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
    /// The station that packets for the address are sent to when they leave by the interface: the
    /// router that a route of this interface names, or the address itself, also where there is no
    /// route: its network is the one behind the interface, whatever the host knows of it.
    ///
    /// # Errors
    /// When the kernel does not tell.
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

    /// Whether the kernel would send packets for the address out by the interface of itself.
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

    /// Asks the kernel to resolve the station's hardware address and to keep it fresh.
    ///
    /// # Errors
    /// When the kernel refuses.
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
            format!(
                "could not have {address} resolved on interface {ifindex} (Linux 5.16 is needed)"
            )
        })
    }

    /// Takes that back. One that is gone already, with its interface, is no failure.
    pub async fn delete_neighbour(&self, ifindex: u32, address: IpAddr) {
        let message = neighbour_message(ifindex, address);
        if let Err(error) = self.route.neighbours().del(message).execute().await {
            log::debug!("neighbour {address} on interface {ifindex} was gone already: {error}");
        }
    }

    /// The station's hardware address, if it is known.
    ///
    /// # Errors
    /// When the kernel refuses.
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
            NetlinkPayload::Error(error) => Err(error.to_io())
                .with_context(|| format!("could not look for {address} on interface {ifindex}")),
            _ => {
                bail!("the kernel's answer about {address} on interface {ifindex} is no neighbour")
            }
        }
    }

    /// The hardware addresses that are known, by interface and address.
    ///
    /// # Errors
    /// When the kernel refuses.
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

/// A message about a station.
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

/// The beginning of a question for the route to an address.
fn route_to(address: IpAddr) -> Result<RouteMessageBuilder<IpAddr>> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Ok(RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits)?)
}

/// The entry, if it says where its station is.
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
