//! ARP for local addresses (RFC 826). Requests are answered. So are probes, which defends the address (RFC 5227).
//! Replies and announcements of other hosts are passed on where the agent resolves backends.

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::{Family as _, V4},
    maps::{Attachment, NO_CONNECTION},
    packet::{Arp, Ethernet},
    pipeline::{
        ingress::local_address::{lookup_local_address, not_local},
        local::conflict::detect_conflict,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Answers an ARP request for a local address.
#[inline(always)]
pub(crate) fn reply_arp<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    arp: Arp,
) -> StageResult<Exit> {
    let unknown_target = not_local(attachment, DropReason::UnknownNeighbourTarget);
    if !arp.is_ethernet_ipv4() {
        return Err(unknown_target);
    }
    let (sender, target) = (arp.sender_address(), arp.target_address());
    let is_probe = sender == Be32::new(0);
    let claimed_address = V4::to_mapped(if is_probe { target } else { sender });
    detect_conflict(env, attachment, arp.sender_mac(), claimed_address, is_probe)?;
    let passes = attachment.flags & Attachment::PASS_ARP_ND != 0;
    if arp.operation() == Arp::REPLY && passes {
        return Ok(Exit::PASS);
    }
    if arp.operation() != Arp::REQUEST {
        return Err(unknown_target);
    }
    let local_address = lookup_local_address::<V4, E>(env, attachment.network, target);
    if local_address.is_none() {
        // An announcement may be that of a backend with a new MAC address.
        let is_announcement = sender == target;
        return Err(if passes && is_announcement {
            Exit::PASS
        } else {
            unknown_target
        });
    }
    let ethernet = Ethernet::at(env, 0).ok_or(unknown_target)?;
    // The Ethernet and the ARP header may name different senders, so both are checked. The one in the ARP header asks.
    let is_valid_sender = is_probe || V4::is_unicast(sender);
    if ethernet.source().is_multicast() || arp.sender_mac().is_multicast() || !is_valid_sender {
        return Err(Exit::drop(DropReason::MartianSource, NO_CONNECTION));
    }
    ethernet.swap_macs(attachment.mac.mac());
    arp.turn_into_reply(attachment.mac.mac());
    Ok(Exit::REPLY)
}
