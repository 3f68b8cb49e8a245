//! The agent: keeps the data path in sync with the store and the host.
//! Forwarding does not depend on it: packets are handled as before while the agent is stopped or killed.

mod availability;
mod change;
pub mod controller;
pub mod drain;
pub mod flow_gc;
pub mod flow_list;
mod packet_summary;
mod refresh;
pub mod status;
pub(crate) mod tasks;

use log::debug;
use tokio::sync::Mutex;

use crate::{
    agent::controller::Controller,
    auth::oidc::Issuers,
    host::Host,
    inject::PacketSocket,
    netlink::{Kernel, Netlink},
};

/// Shared handles of the running agent, for its tasks and the API.
pub struct Agent {
    /// Desired state, observed state and the data path.
    pub controller: Mutex<Controller>,
    /// Attachments. The lock admits one refresh of the host at a time.
    pub(crate) host: Mutex<Host>,
    pub(crate) netlink: Netlink,
    pub(crate) kernel: Kernel,
    pub(crate) packet_socket: PacketSocket,
    /// OIDC issuers whose tokens are accepted.
    pub issuers: Issuers,
}

/// Frame with the index of the interface that it is sent from.
pub(crate) type OutgoingFrame = (u32, Vec<u8>);

impl Agent {
    fn send_frames(&self, frames: &[OutgoingFrame]) {
        for (ifindex, frame) in frames {
            self.send_frame(*ifindex, frame);
        }
    }

    /// Sends a frame. A failure is only logged, because receivers must cope with lost frames anyway.
    fn send_frame(&self, ifindex: u32, frame: &[u8]) {
        if let Err(error) = self.packet_socket.send(ifindex, frame) {
            debug!("inject: frame not sent ifindex={ifindex} error=\"{error}\"");
        }
    }
}
