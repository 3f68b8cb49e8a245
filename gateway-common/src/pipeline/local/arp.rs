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
    let ethernet = Ethernet::at(env, 0).ok_or(not_local(attachment, DropReason::Truncated))?;
    // A frame to another host, which a switch floods.
    if !ethernet.is_addressed_to(attachment.mac) && !ethernet.destination().is_multicast() {
        return Err(not_local(attachment, DropReason::DestinationMac));
    }
    let operation = arp.operation();
    if !arp.is_ethernet_ipv4() || (operation != Arp::REQUEST && operation != Arp::REPLY) {
        return Err(not_local(attachment, DropReason::ArpInvalid));
    }
    let (sender, target) = (arp.sender_address(), arp.target_address());
    let local_address = lookup_local_address::<V4, E>(env, attachment.network, target);
    let unknown_target = not_local(attachment, DropReason::UnknownNeighbourTarget);
    // Only a request may come from a host without an address.
    let is_probe = operation == Arp::REQUEST && sender == Be32::new(0);
    let is_valid_sender = is_probe || V4::is_unicast(sender);
    // The Ethernet and the ARP header may name different senders, as behind a proxy, so both are checked.
    if ethernet.source().is_multicast() || arp.sender_mac().is_multicast() || !is_valid_sender {
        return Err(match local_address {
            Some(_) => Exit::drop(DropReason::MartianSource, NO_CONNECTION),
            None => not_local(attachment, DropReason::MartianSource),
        });
    }
    let claimed_address = V4::to_mapped(if is_probe { target } else { sender });
    detect_conflict(env, attachment, arp.sender_mac(), claimed_address, is_probe)?;
    let passes = attachment.flags & Attachment::PASS_ARP_ND != 0;
    if operation == Arp::REPLY {
        return if passes {
            Ok(Exit::PASS)
        } else {
            Err(unknown_target)
        };
    }
    if local_address.is_none() {
        // An announcement may be that of a backend with a new MAC address.
        let is_announcement = sender == target;
        return Err(if passes && is_announcement {
            Exit::PASS
        } else {
            unknown_target
        });
    }
    // The one in the ARP header asks, so the reply goes to it, as the kernel's does.
    ethernet.set_destination(arp.sender_mac());
    ethernet.set_source(attachment.mac.mac());
    arp.turn_into_reply(attachment.mac.mac());
    Ok(Exit::REPLY)
}
