//! Netlink events about changes of the host.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::StreamExt as _;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use rtnetlink::MulticastGroup;
use tokio::sync::Notify;

/// Number of changed neighbours that are recorded one by one. More of them cause a full resync.
const MAX_NEIGHBOURS: usize = 4_096;

/// Changes of the host since the last call of [`NetlinkMonitor::recv`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEvents {
    /// True if routes or the host's own addresses changed, or more neighbours than are recorded.
    pub resync_all: bool,
    /// Interfaces that appeared, disappeared or changed, with name and index.
    pub links: BTreeSet<(String, u32)>,
    /// Neighbours that appeared, disappeared or changed, by interface index and address.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
}

impl HostEvents {
    fn add(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let index = link.header.index;
                self.links.extend(link_name(link).map(|name| (name, index)));
            }
            RouteNetlinkMessage::NewNeighbour(neighbour)
            | RouteNetlinkMessage::DelNeighbour(neighbour) => {
                if self.neighbours.len() < MAX_NEIGHBOURS {
                    self.neighbours.extend(neighbour_key(neighbour));
                } else {
                    self.resync_all = true;
                }
            }
            _ => self.resync_all = true,
        }
    }
}

fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

fn neighbour_key(neighbour: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let mut attributes = neighbour.attributes.iter();
    let address = attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => Some(IpAddr::V4(*found)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => Some(IpAddr::V6(*found)),
        _ => None,
    })?;
    Some((neighbour.header.ifindex, address))
}

#[derive(Debug, Default)]
struct MonitorState {
    events: Mutex<HostEvents>,
    changed: Notify,
}

/// Receiver of netlink events, which it collects until they are read.
#[derive(Debug)]
pub struct NetlinkMonitor(Arc<MonitorState>);

impl NetlinkMonitor {
    /// Subscribes to the events. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Fails if the kernel gives no socket.
    pub fn start() -> io::Result<Self> {
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        let state = Arc::new(MonitorState::default());
        let producer = Arc::clone(&state);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                if let NetlinkPayload::InnerMessage(message) = message.payload {
                    let mut events = producer
                        .events
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    events.add(&message);
                    producer.changed.notify_one();
                }
            }
            log::error!("netlink: event stream closed, changes of the host are no longer noticed");
        });
        Ok(Self(state))
    }

    /// Waits for a change, and returns all changes since the last call.
    pub async fn recv(&self) -> HostEvents {
        self.0.changed.notified().await;
        std::mem::take(&mut *self.0.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
