//! The return path: the neighbour that a flow's packets are returned to.
//!
//! The newest packet of the flow decides. A client moves, or its router does, and its open connections go on.
//!
//! ```text
//!   packet to the service ──► entry towards the service     holds a digest of the MAC address, and the attachment
//!                                  │ they differ
//!                                  ▼
//!                             entry towards the consumer    holds the whole MAC address, and the attachment
//! ```
//!
//! Packets of a direction read their own entry only, so a packet to the service notices without another look-up that
//! its sender has moved.

use crate::{
    family::Family,
    flow::{Direction, FlowRef, ReturnPath, table},
    packet::{Ethernet, PackedMac},
    platform::PlatformFor,
};

/// Returns the path of the packet, which arrived at this attachment.
#[inline(always)]
pub(crate) fn of_packet(ethernet: Ethernet, attachment_slot: u32) -> ReturnPath {
    ReturnPath::new(attachment_slot, ethernet.packed_source())
}

/// Returns true if a packet of the flow came by another path than the one before, so that replies must go another way.
#[inline(always)]
pub(crate) fn has_changed<F: Family>(flow: &FlowRef<F>, packet: ReturnPath) -> bool {
    flow.entry().direction() == Direction::ToService && !flow.return_path().is_path_of(packet)
}

/// Returns true if a path is that of another host: its MAC address is neither a multicast address nor the gateway's own.
#[inline(always)]
pub(crate) fn is_of_host(path: ReturnPath, own: PackedMac) -> bool {
    let mac = path.mac();
    !mac.is_multicast() && mac != own
}

/// Runs [`calls::set_return_path`](super::calls::set_return_path).
///
/// The pin on the entry towards the service lets one CPU at a time change both entries. Another CPU that comes
/// meanwhile leaves the path as it is: the next packet that differs from it changes it.
#[inline(always)]
pub(crate) fn set_now<F: Family, E: PlatformFor<F>>(
    env: &E,
    flow: &mut FlowRef<F>,
    packet: ReturnPath,
) {
    if !flow.pin() {
        return;
    }
    if let Some(mut peer) = table::peer::<F, E>(env, flow)
        && peer.pin()
    {
        peer.set_return_path(peer.return_path().to_consumer_by(packet));
        peer.unpin();
        flow.set_return_path(flow.return_path().to_service_by(packet));
    }
    flow.unpin();
}
