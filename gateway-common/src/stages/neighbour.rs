//! Stage 3, neighbour discovery: solicitations for an address of ours are answered, those of
//! duplicate address detection too (RFC 4861, section 7.2; RFC 4862, section 5.4). The address is
//! never tentative here: it is the gateway's as long as it is configured.

use crate::{
    Be16, Be32, DropReason, Environment, Family as _, IpAddress, Step, Turn,
    family::{ALL_NODES_MAC, Header as _, V6, pseudo_header},
    maps::{Attachment, NO_LINK},
    packet::{Ethernet, Ipv6, LinkLayerOption, Mac, Neighbour, protocol},
    stages::{
        local::claimed,
        parse::{L3, Packet, not_ours, own_address},
    },
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

/// The message, if it is one of neighbour discovery that concerns us: right behind the header.
#[inline(always)]
pub(super) fn message<E: Environment>(env: &E, packet: &Packet<V6>) -> Option<Neighbour> {
    if packet.protocol != protocol::ICMPV6 || packet.l4.get() != MESSAGE {
        return None;
    }
    Neighbour::at(env, MESSAGE).filter(|message| {
        matches!(
            message.type_and_code(),
            Neighbour::SOLICITATION | Neighbour::ADVERTISEMENT
        )
    })
}

/// Answers a solicitation for an address of ours; an advertisement of one is somebody else's claim to
/// it.
#[inline(always)]
pub(super) fn discovered<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<V6>,
    message: Neighbour,
) -> Step<Turn> {
    let (ipv6, length) = (packet.header(env)?, packet.payload);
    let target = message.target();
    // The table of addresses has those of IPv4 mapped.
    let Some(target) = V6::narrow(target) else {
        return Err(Turn::drop(DropReason::MappedAddress, NO_LINK));
    };
    let station = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    let probe = ipv6.source() == IpAddress::default();
    if message.type_and_code() == Neighbour::ADVERTISEMENT {
        if ipv6.hop_limit() == Neighbour::HOP_LIMIT {
            claimed(env, attachment, station, target, false)?;
        }
        return Err(if attachment.flags & Attachment::PASS_NEIGHBOURS != 0 {
            Turn::PASS
        } else {
            not_ours(attachment, DropReason::ArpIgnored)
        });
    }
    if probe {
        claimed(env, attachment, station, target, true)?;
    }
    let Some(address) = own_address::<V6, E>(env, attachment.network, target) else {
        return Err(not_ours(attachment, DropReason::ArpIgnored));
    };
    let drop = |reason| Turn::drop(reason, address.link);
    // Section 7.1.1: what a router has forwarded, or is too short, is none.
    if ipv6.hop_limit() != Neighbour::HOP_LIMIT || length < Neighbour::OCTETS {
        return Err(drop(DropReason::Malformed));
    }
    let asker = ipv6.source();
    let unicast = probe || V6::is_unicast(asker);
    if station.is_group() || !unicast || asker == target {
        return Err(drop(DropReason::InvalidSource));
    }
    // Who has no address yet asks whether he may have this one: all are told that he may not.
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
    ethernet.set_source(attachment.mac.mac());
    Ok(Turn::REPLY)
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
    option.set_mac(attachment.mac.mac());
    let [a, b, c] = attachment.mac.mac().words();
    let sum = pseudo_header::<V6>(target, to, protocol::ICMPV6, LENGTH);
    let sum = V6::add(sum, target)
        .be16(Neighbour::ADVERTISEMENT)
        .be32(Be32::new(flags))
        .be16(LinkLayerOption::TARGET)
        .be16(Be16::from_raw(a))
        .be16(Be16::from_raw(b))
        .be16(Be16::from_raw(c));
    message.set_checksum(sum.checksum());
    Some(())
}
