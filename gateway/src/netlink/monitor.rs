//! Netlink events about changes of the host.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use rtnetlink::MulticastGroup;
use tokio::{sync::Notify, time::sleep};

use crate::netlink::{
    addresses::interface_name,
    features::{FeatureEvent, FeatureEvents},
};

/// Number of changed neighbours that are recorded one by one. More of them cause a full resync.
const MAX_NEIGHBOURS: usize = 4_096;

/// Delay before a closed event stream is opened again.
const RESUBSCRIBE_DELAY: Duration = Duration::from_secs(1);

/// Changes of the host since the last call of [`NetlinkMonitor::recv`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEvents {
    /// True if routes or the host's own addresses changed, or more neighbours than are recorded, or if events were
    /// lost.
    pub resync_all: bool,
    /// Interfaces that appeared, disappeared or changed, with name and index.
    pub links: BTreeSet<(String, u32)>,
    /// Neighbours that appeared, disappeared or changed, by interface index and address.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
}

impl HostEvents {
    /// Adds a message. The kernel drops messages while the socket's buffer is full (ENOBUFS), so that anything may have
    /// changed after an overrun.
    fn add(&mut self, payload: &NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(message) => self.add_message(message),
            NetlinkPayload::Overrun(_) => {
                log::warn!("netlink: events lost, the whole host is scanned reason=buffer_full");
                self.resync_all = true;
            }
            _ => {}
        }
    }

    fn add_message(&mut self, message: &RouteNetlinkMessage) {
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

/// Stream of the messages to a netlink socket.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = NetlinkPayload<T>> + Send>>;

/// Subscribes to events about interfaces, addresses, routes and neighbours.
fn subscribe() -> io::Result<Messages<RouteNetlinkMessage>> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Ifaddr,
    ])?;
    tokio::spawn(connection);
    Ok(Box::pin(messages.map(|(message, _)| message.payload)))
}

#[derive(Debug, Default)]
struct MonitorState {
    events: Mutex<HostEvents>,
    changed: Notify,
}

impl MonitorState {
    fn update(&self, update: impl FnOnce(&mut HostEvents)) {
        update(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Collects events about interfaces, addresses, routes and neighbours.
    async fn collect(&self, mut messages: Messages<RouteNetlinkMessage>) {
        loop {
            while let Some(payload) = messages.next().await {
                self.update(|events| events.add(&payload));
            }
            log::warn!("netlink: event stream closed, it is opened again");
            messages = loop {
                sleep(RESUBSCRIBE_DELAY).await;
                match subscribe() {
                    Ok(messages) => break messages,
                    Err(error) => log::warn!("netlink: event stream not opened error=\"{error}\""),
                }
            };
            self.update(|events| events.resync_all = true);
        }
    }

    /// Collects events about drivers' features: each counts as a change of its interface.
    async fn collect_features(&self, mut features: FeatureEvents) {
        while let Some(event) = features.next().await {
            self.update(|events| match event {
                FeatureEvent::Changed(ifindex) => {
                    let name = interface_name(ifindex);
                    events.links.extend(name.map(|name| (name, ifindex)));
                }
                FeatureEvent::Lost => events.resync_all = true,
            });
        }
        log::warn!("netlink: feature event stream closed, changes are found by full scans only");
    }
}

/// Receiver of netlink events, which it collects until they are read.
#[derive(Debug)]
pub struct NetlinkMonitor(Arc<MonitorState>);

impl NetlinkMonitor {
    /// Subscribes to the events. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Fails if the kernel gives no socket.
    pub async fn start() -> io::Result<Self> {
        let state = Arc::new(MonitorState::default());
        let messages = subscribe()?;
        let collector = Arc::clone(&state);
        tokio::spawn(async move { collector.collect(messages).await });
        match FeatureEvents::subscribe().await {
            Ok(features) => {
                let collector = Arc::clone(&state);
                tokio::spawn(async move { collector.collect_features(features).await });
            }
            // Before Linux 6.3 the kernel does not report the features of drivers.
            Err(error) => {
                log::debug!("netlink: no events about drivers' features error=\"{error:#}\"")
            }
        }
        Ok(Self(state))
    }

    /// Waits for a change, and returns all changes since the last call.
    pub async fn recv(&self) -> HostEvents {
        self.0.changed.notified().await;
        std::mem::take(&mut *self.0.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrun_causes_a_full_resync() {
        let mut events = HostEvents::default();
        events.add(&NetlinkPayload::Noop);
        assert_eq!(events, HostEvents::default());
        events.add(&NetlinkPayload::Overrun(Vec::new()));
        assert!(events.resync_all);
    }
}
