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

use std::{io, sync::Arc};

use rtnetlink::Handle;
use tokio::sync::Mutex;

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
    /// Held while the kernel lists something on the route socket: it refuses a second list on the same socket with `EBUSY`.
    listing: Arc<Mutex<()>>,
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
            listing: Arc::default(),
            features: DeviceFeatures::connect()?,
        })
    }

    /// Returns the socket for features of interfaces.
    #[must_use]
    pub const fn features(&self) -> &DeviceFeatures {
        &self.features
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use super::*;

    #[tokio::test]
    async fn lists_that_are_requested_at_the_same_time_are_all_complete() {
        let netlink = Netlink::connect().unwrap();
        let requests = (0..50).map(|_| async {
            let links = netlink.links().await?;
            let addresses = netlink.addresses().await?;
            let routes = netlink.host_routes().await?;
            anyhow::Ok((links.len(), addresses.len(), routes.len()))
        });
        let counts = try_join_all(requests).await.unwrap();
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    }
}
