//! Stage 3: an address of ours behaves as a network card does. ARP is answered (RFC 826; probes
//! too, which defends the address as RFC 5227 wants it), and so are echo requests (RFC 1122,
//! section 3.2.2.6; RFC 4443, section 4.2). Neighbour discovery is in [`super::neighbour`].

use crate::{
    DropReason, Environment, Family, IpAddress, Step, Verdict,
    checksum::{self, Sum},
    family::Header as _,
    maps::{AddressKey, Attachment, NO_LINK},
    packet::{Arp, Ethernet, Icmp, protocol},
    stages::parse::{Echo, not_ours},
};

/// Answers a request for an address of ours.
#[inline(always)]
pub(super) fn arp<E: Environment>(env: &E, attachment: &Attachment, arp: Arp) -> Step<Verdict> {
    let replies_wanted = attachment.flags & Attachment::PASS_NEIGHBOURS != 0;
    if replies_wanted && arp.operation() == Arp::REPLY {
        return Ok(Verdict::Pass);
    }
    let ignored = || not_ours(attachment, DropReason::ArpIgnored);
    if !arp.is_ethernet_ipv4() || arp.operation() != Arp::REQUEST {
        return Err(ignored());
    }
    let key = AddressKey {
        network: attachment.network,
        address: IpAddress::from_v4(arp.target_address()),
    };
    if env.address(&key).is_none() {
        return Err(ignored());
    }
    let ethernet = Ethernet::at(env, 0).ok_or_else(ignored)?;
    // A frame can name two senders. The one that ARP names is the one who asks.
    if ethernet.source().is_group() || arp.sender_mac().is_group() {
        return Err(Verdict::Drop(DropReason::InvalidSource, NO_LINK));
    }
    ethernet.turn_round(attachment.mac);
    arp.answer(attachment.mac);
    Ok(Verdict::Reply)
}

/// Answers an echo request to an address of ours.
#[inline(always)]
pub(super) fn echo<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    echo: &Echo<F>,
) -> Step<Verdict> {
    let (header, icmp) = (echo.header, echo.icmp);
    let key = AddressKey {
        network: attachment.network,
        address: F::widen(header.destination()),
    };
    let Some(address) = env.address(&key) else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    let drop = |reason| Verdict::Drop(reason, address.link);
    let ethernet = Ethernet::at(env, 0).ok_or(drop(DropReason::Truncated))?;
    let (request, reply) = if F::ICMP == protocol::ICMPV6 {
        (Icmp::ECHO_REQUEST_V6, Icmp::ECHO_REPLY_V6)
    } else {
        (Icmp::ECHO_REQUEST, Icmp::ECHO_REPLY)
    };
    if icmp.type_and_code() != request {
        return Err(drop(DropReason::IcmpUnsupported));
    }
    if ethernet.source().is_group() || !F::is_host(header.source(), header.destination()) {
        return Err(drop(DropReason::InvalidSource));
    }
    let message = Sum::ZERO.replace16(request, reply);
    icmp.set_type_and_code(reply);
    // An answer may be all zeros.
    icmp.set_checksum(checksum::update_nonzero(icmp.checksum(), message.fold()));
    // Swapping source and destination leaves every sum as it is; a fresh hop limit doesn't.
    header.set_addresses(header.destination(), header.source());
    header.renew();
    ethernet.turn_round(attachment.mac);
    Ok(Verdict::Reply)
}
