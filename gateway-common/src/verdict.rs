//! Verdicts: the decision about a packet, which the XDP program carries out.

use crate::drop_reason::Attribution;

/// The decision about one packet. The packet's bytes have been changed accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass the packet to the host's network stack unchanged (`XDP_PASS`): its destination is not a local address.
    Pass,
    /// Drop the packet (`XDP_DROP`).
    Drop(Attribution),
    /// The packet was replaced by a reply (ARP, neighbour discovery, echo): redirect it to its ingress interface.
    Reply,
    /// The packet was replaced by a TCP reset: redirect it to its ingress interface, and count a drop.
    TcpReset(Attribution),
    /// The packet was replaced by an ICMP error: redirect it to its ingress interface, and count a drop.
    IcmpError(Attribution),
    /// The packet was rewritten: redirect it to the attachment in this slot of the device map.
    Redirect(u32),
}
