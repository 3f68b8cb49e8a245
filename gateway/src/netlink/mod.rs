//! What the kernel says of the host's interfaces, routes and neighbours, and asking it to keep
//! neighbours known.

mod addresses;
mod features;
mod kernel;
mod links;
mod neighbours;
pub mod vlan;
mod watch;

use std::io;

use rtnetlink::Handle;

pub use addresses::interface_name;
pub use features::Features;
pub use kernel::Kernel;
pub use links::{FarEnd, Link, XdpAttachment};
pub use watch::{News, Watch};

/// Connections to the kernel's netlink families.
#[derive(Clone, Debug)]
pub struct Netlink {
    route: Handle,
    features: Features,
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
            features: Features::connect()?,
        })
    }

    /// What drivers can do for XDP.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }
}
