//! Stage 3, neighbour discovery: solicitations for an address of ours are answered, those of
//! duplicate address detection too (RFC 4861, section 7.2; RFC 4862, section 5.4). The address is
//! never tentative here: it is the gateway's as long as it is configured.

use crate::{
    Be16, Be32, DropReason, Environment, IpAddress, Step, Verdict,
    family::{ALL_NODES_MAC, Header as _, V6, pseudo_header},
    maps::{AddressKey, Attachment},
    packet::{Ethernet, Ipv6, LinkLayerOption, Neighbour, protocol},
    stages::parse::{L3, Solicitation, not_ours},
};

/// The advertisement's length: the message, and an option with our hardware address.
const LENGTH: u16 = Neighbour::OCTETS + LinkLayerOption::OCTETS;
/// Where the message starts.
const MESSAGE: usize = L3 + Ipv6::LENGTH;
/// The frame's length.
const FRAME: usize = MESSAGE + LENGTH as usize;

/// All nodes of the link: ff02::1.
const ALL_NODES: IpAddress = IpAddress::new([
    Be32::new(0xff02_0000),
    Be32::new(0),
    Be32::new(0),
    Be32::new(1),
]);

/// Answers a solicitation for an address of ours.
#[inline(always)]
pub(super) fn solicited<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    solicitation: Solicitation,
) -> Step<Verdict> {
    let Solicitation {
        ipv6,
        message,
        length,
    } = solicitation;
    let target = message.target();
    let key = AddressKey {
        network: attachment.network,
        address: target,
    };
    let Some(address) = env.address(&key) else {
        return Err(not_ours(attachment, DropReason::ArpIgnored));
    };
    let drop = |reason| Verdict::Drop(reason, address.link);
    // Section 7.1.1: what a router has forwarded, or is too short, is none.
    if ipv6.hop_limit() != Neighbour::HOP_LIMIT || length < Neighbour::OCTETS {
        return Err(drop(DropReason::Malformed));
    }
    let ethernet = Ethernet::at(env, 0).ok_or(drop(DropReason::Truncated))?;
    let (asker, station) = (ipv6.source(), ethernet.source());
    if station.is_group() || asker.words()[0].get() >> 24 == 0xff || asker == target {
        return Err(drop(DropReason::InvalidSource));
    }
    // Who has no address yet asks whether he may have this one: all are told that he may not.
    let probe = asker == IpAddress::default();
    let (to, station, flags) = if probe {
        (ALL_NODES, ALL_NODES_MAC, Neighbour::OVERRIDE)
    } else {
        (asker, station, Neighbour::SOLICITED | Neighbour::OVERRIDE)
    };
    if !env.resize(FRAME) {
        return Err(drop(DropReason::ReplyFailed));
    }
    let written = advertise(env, attachment, target, to, flags);
    let ethernet = Ethernet::at(env, 0).filter(|_| written.is_some());
    let ethernet = ethernet.ok_or(drop(DropReason::ReplyFailed))?;
    ethernet.set_destination(station);
    ethernet.set_source(attachment.mac);
    Ok(Verdict::Reply)
}

/// Writes the advertisement over the solicitation. The windows are taken anew: resizing voids them.
#[inline(always)]
fn advertise<E: Environment>(
    env: &E,
    attachment: &Attachment,
    target: IpAddress,
    to: IpAddress,
    flags: u32,
) -> Option<()> {
    let ipv6 = Ipv6::at(env, L3)?;
    let message = Neighbour::at(env, MESSAGE)?;
    let option = LinkLayerOption::at(env, MESSAGE + Neighbour::LENGTH)?;
    ipv6.write(target, to, protocol::ICMPV6, LENGTH);
    ipv6.set_hop_limit(Neighbour::HOP_LIMIT);
    message.set_type_and_code(Neighbour::ADVERTISEMENT);
    message.set_flags(Be32::new(flags));
    message.set_target(target);
    option.set_type_and_length(LinkLayerOption::TARGET);
    option.set_mac(attachment.mac);
    let [a, b, c] = attachment.mac.words();
    let sum = pseudo_header::<V6>(target, to, protocol::ICMPV6, LENGTH);
    let sum = <V6 as crate::Family>::add(sum, target)
        .be16(Neighbour::ADVERTISEMENT)
        .be32(Be32::new(flags))
        .be16(LinkLayerOption::TARGET)
        .be16(Be16::from_raw(a))
        .be16(Be16::from_raw(b))
        .be16(Be16::from_raw(c));
    message.set_checksum(sum.checksum());
    Some(())
}
