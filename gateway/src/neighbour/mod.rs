//! Resolution of neighbours' MAC addresses by ARP (RFC 826) and neighbour discovery (RFC 4861), independent of the
//! kernel's neighbour table. Pure.

mod message;
mod round;
mod sender;
mod table;
mod wanted;

use std::net::IpAddr;

use gateway_common::packet::Mac;

pub use message::{MessageKind, NeighbourMessage, parse_arp, parse_neighbour_discovery};
pub use round::Round;
pub use sender::{InterfaceAddress, Sender, select_sender};
pub use table::{NeighbourTable, PROBE_NUM, RETRANSMIT_INTERVAL, Solicitation, Unanswered};
pub use wanted::WantedNeighbours;

/// Neighbour: interface index and IP address.
pub type Neighbour = (u32, IpAddr);

/// Returns true if a host can have the MAC address.
fn is_host_mac(mac: Mac) -> bool {
    !mac.is_multicast() && mac != Mac::default()
}
