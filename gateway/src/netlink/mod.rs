//! What the kernel says of the host's interfaces, routes and neighbours, and asking it to keep
//! neighbours known.

mod addresses;
mod features;
mod kernel;
mod links;
mod monitor;
mod neighbours;
pub mod vlan_offload;

use std::io;

use rtnetlink::Handle;

pub use addresses::interface_name;
pub use features::DeviceFeatures;
pub use kernel::Kernel;
pub use links::{Link, VethPeer, XdpAttachment};
pub use monitor::{HostEvents, NetlinkMonitor};

/// Connections to the kernel's netlink families.
#[derive(Clone, Debug)]
pub struct Netlink {
    route: Handle,
    features: DeviceFeatures,
}

impl Netlink {
    /// Connects. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn connect() -> io::Result<Self> {
        let (connection, route, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self {
            route,
            features: DeviceFeatures::connect()?,
        })
    }

    /// What drivers can do for XDP.
    #[must_use]
    pub const fn features(&self) -> &DeviceFeatures {
        &self.features
    }
}
