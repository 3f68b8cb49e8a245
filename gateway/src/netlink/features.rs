//! XDP features of an interface's driver (generic netlink family `netdev`, Linux 6.3).

use std::io;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use genetlink::{GenetlinkHandle, message::RawGenlMessage};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::AsyncSocket as _;

use crate::netlink::monitor::Messages;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_CMD_DEV_CHANGE_NTF: u8 = 4;
/// Multicast group of the events about devices.
const NETDEV_MCGRP_MGMT: &str = "mgmt";
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 1 << 2;

/// Generic netlink socket for features of interfaces.
#[derive(Clone, Debug)]
pub struct DeviceFeatures {
    handle: GenetlinkHandle,
}

impl DeviceFeatures {
    pub(super) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Returns the handle of the generic netlink socket.
    pub(super) fn handle(&self) -> GenetlinkHandle {
        self.handle.clone()
    }

    /// Returns true if the interface accepts redirected frames, or `None` if the kernel does not report it.
    ///
    /// A veth accepts them exactly while its peer runs NAPI, which the peer does if it has GRO switched on or an XDP
    /// program attached. Otherwise the kernel drops redirected frames without counting them.
    pub async fn accepts_redirects(&self, ifindex: u32) -> Option<bool> {
        let device = NetdevMessage {
            ifindex,
            xdp_features: None,
        };
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(device));
        message.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).await.ok()?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::InnerMessage(message) = answer.ok()?.payload {
                let features = message.payload.xdp_features?;
                return Some(features & NETDEV_XDP_ACT_NDO_XMIT != 0);
            }
        }
        None
    }
}

/// Event about the XDP features of drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeatureEvent {
    /// The features of the interface with this index changed.
    Changed(u32),
    /// The kernel dropped events, because the socket's buffer was full.
    Lost,
}

/// Stream of the events about XDP features.
///
/// Their change is no change of the interface for the `route` family: a veth gets or loses the feature to accept
/// redirected frames when its peer, perhaps in another network namespace, switches GRO on or off.
pub(super) struct FeatureEvents {
    messages: Messages<RawGenlMessage>,
    family: u16,
}

impl FeatureEvents {
    /// Subscribes to the events.
    ///
    /// # Errors
    /// Fails if the kernel does not have them (before Linux 6.3), or gives no socket.
    pub(super) async fn subscribe() -> Result<Self> {
        let handle = DeviceFeatures::connect()?.handle();
        let family = handle.resolve_family::<NetdevMessage>().await?;
        let group = family.multicast_groups.get(NETDEV_MCGRP_MGMT);
        let group = group.context("the kernel has no events about network devices")?;
        let (mut connection, _, messages) = genetlink::new_connection()?;
        let socket = connection.socket_mut().socket_mut();
        // A socket without an address of its own gets no events.
        socket.bind_auto()?;
        socket.add_membership(*group)?;
        tokio::spawn(connection);
        Ok(Self {
            messages: Box::pin(messages.map(|(message, _)| message.payload)),
            family: family.id,
        })
    }

    /// Waits for an event. Returns `None` if the stream is closed.
    pub(super) async fn next(&mut self) -> Option<FeatureEvent> {
        loop {
            match self.messages.next().await? {
                NetlinkPayload::Overrun(_) => return Some(FeatureEvent::Lost),
                NetlinkPayload::InnerMessage(message) if message.family_id == self.family => {
                    if let Some(event) = parse_event(&message) {
                        return Some(event);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Parses a message to the multicast group. Returns `None` if it is about no change of features: the `route` family
/// reports interfaces that appear and disappear.
fn parse_event(message: &RawGenlMessage) -> Option<FeatureEvent> {
    if message.header.cmd != NETDEV_CMD_DEV_CHANGE_NTF {
        return None;
    }
    let device = NetdevMessage::parse_with_param(&message.payload[..], message.header).ok()?;
    Some(FeatureEvent::Changed(device.ifindex))
}

/// Message of the `netdev` family about one interface.
#[derive(Clone, Copy, Debug)]
struct NetdevMessage {
    ifindex: u32,
    xdp_features: Option<u64>,
}

impl GenlFamily for NetdevMessage {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl NetdevMessage {
    fn ifindex_attribute(&self) -> DefaultNla {
        DefaultNla::new(NETDEV_A_DEV_IFINDEX, self.ifindex.to_ne_bytes().to_vec())
    }
}

impl Emitable for NetdevMessage {
    fn buffer_len(&self) -> usize {
        self.ifindex_attribute().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.ifindex_attribute().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for NetdevMessage {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut device = Self {
            ifindex: 0,
            xdp_features: None,
        };
        for attribute in NlasIterator::new(buffer) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NETDEV_A_DEV_IFINDEX => {
                    device.ifindex = value.try_into().map_or(0, u32::from_ne_bytes);
                }
                NETDEV_A_DEV_XDP_FEATURES => {
                    device.xdp_features = value.try_into().ok().map(u64::from_ne_bytes);
                }
                _ => {}
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_features_are_events() {
        let device = NetdevMessage {
            ifindex: 7,
            xdp_features: None,
        };
        let message = |cmd| {
            let mut message = RawGenlMessage::from_genlmsg(GenlMessage::from_payload(device));
            message.header.cmd = cmd;
            message
        };
        assert_eq!(
            parse_event(&message(NETDEV_CMD_DEV_CHANGE_NTF)),
            Some(FeatureEvent::Changed(7))
        );
        assert_eq!(parse_event(&message(NETDEV_CMD_DEV_GET)), None);
    }
}
