//! Interfaces, addresses, routes and neighbours of the host, read and changed over netlink.

mod addresses;
mod features;
mod host_use;
mod kernel;
mod links;
mod monitor;
mod neighbours;
mod reverse_path;
mod statistics;
pub mod vlan_offload;

use std::io;

use rtnetlink::Handle;

pub use addresses::{HostAddress, interface_name};
pub use features::DeviceFeatures;
pub use host_use::{HostRoute, StackedInterface};
pub use kernel::Kernel;
pub use links::{Link, VethPeer, XdpAttachment};
pub use monitor::{HostEvents, NetlinkMonitor};
pub use neighbours::KernelNeighbour;
pub use reverse_path::{reverse_path_setting, strict_reverse_path_filter};
pub use statistics::received_packets;

/// Sockets of the netlink families that the agent uses.
#[derive(Clone, Debug)]
pub struct Netlink {
    route: Handle,
    features: DeviceFeatures,
}

impl Netlink {
    /// Opens the sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Fails if the kernel gives no socket.
    pub fn connect() -> io::Result<Self> {
        let (connection, route, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self {
            route,
            features: DeviceFeatures::connect()?,
        })
    }

    /// Returns the socket for features of interfaces.
    #[must_use]
    pub const fn features(&self) -> &DeviceFeatures {
        &self.features
    }
}
