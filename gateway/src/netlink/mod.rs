//! What the kernel says of the host's interfaces, routes and neighbours, and asking it to keep
//! neighbours known.

mod features;
mod kernel;
mod links;
mod neighbours;

use std::io;

use futures_util::StreamExt as _;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

pub use features::Features;
pub use kernel::Kernel;
pub use links::{Link, XdpAttachment};

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

    /// Tells of changes to interfaces, routes and neighbours: a message for one or more of them.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn watch() -> io::Result<mpsc::Receiver<()>> {
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        // A place for one: who is slow hears once of all that happened meanwhile.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                match sender.try_send(()) {
                    Err(mpsc::error::TrySendError::Closed(())) => break,
                    Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
                }
            }
        });
        Ok(receiver)
    }
}
