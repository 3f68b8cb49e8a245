//! Next hops and their hardware addresses. The kernel resolves and keeps them: entries are
//! "managed" (Linux 5.16), which it refreshes by itself as long as they exist.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use gateway_common::packet::Mac;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::RouteMessageBuilder;

use crate::netlink::Netlink;

impl Netlink {
    /// The station that packets for the address are sent to when they leave by the interface: the
    /// address itself, or the router that a route of this interface names.
    ///
    /// # Errors
    /// When the kernel has no way there.
    pub async fn next_hop(&self, ifindex: u32, address: Ipv4Addr) -> Result<Ipv4Addr> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(ifindex)
            .build();
        let routes = self
            .route
            .route()
            .get(message)
            .execute()
            .try_collect::<Vec<_>>();
        let routes = routes
            .await
            .with_context(|| format!("no route to {address} by interface {ifindex}"))?;
        let gateway = routes
            .iter()
            .flat_map(|route| &route.attributes)
            .find_map(|attribute| match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
                _ => None,
            });
        Ok(gateway.unwrap_or(address))
    }

    /// Whether the kernel would send packets for the address out by the interface of itself.
    pub async fn routes_by(&self, ifindex: u32, address: Ipv4Addr) -> bool {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build();
        let routes = self
            .route
            .route()
            .get(message)
            .execute()
            .try_collect::<Vec<_>>()
            .await;
        routes.is_ok_and(|routes| {
            let mut attributes = routes.iter().flat_map(|route| &route.attributes);
            attributes.any(|attribute| *attribute == RouteAttribute::Oif(ifindex))
        })
    }

    /// Asks the kernel to resolve the station's hardware address and to keep it fresh.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn manage_neighbour(&self, ifindex: u32, address: Ipv4Addr) -> Result<()> {
        let mut request = self
            .route
            .neighbours()
            .add(ifindex, IpAddr::V4(address))
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
    pub async fn forget_neighbour(&self, ifindex: u32, address: Ipv4Addr) {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = ifindex;
        let destination = NeighbourAttribute::Destination(NeighbourAddress::Inet(address));
        message.attributes.push(destination);
        if let Err(error) = self.route.neighbours().del(message).execute().await {
            log::debug!("neighbour {address} on interface {ifindex} was gone already: {error}");
        }
    }

    /// The hardware addresses that are known, by interface and address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn neighbours(&self) -> Result<HashMap<(u32, Ipv4Addr), Mac>> {
        let request = self
            .route
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet);
        let messages = request.execute().try_collect::<Vec<_>>();
        let messages = messages.await.context("could not list the neighbours")?;
        Ok(messages.into_iter().filter_map(read).collect())
    }
}

/// The entry, if it says where its station is.
fn read(message: NeighbourMessage) -> Option<((u32, Ipv4Addr), Mac)> {
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
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(found),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes).ok().map(Mac::new);
            }
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac?))
}
