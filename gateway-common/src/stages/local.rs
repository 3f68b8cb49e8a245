//! Stage 3: an address of ours behaves as a network card does. ARP is answered (RFC 826; probes
//! too, which defends the address as RFC 5227 wants it), and so are echo requests (RFC 1122,
//! section 3.2.2.6).

use crate::{
    Be16, DropReason, Environment, Step, Verdict,
    checksum::{self, Sum, TTL_DECREMENT},
    maps::{AddressKey, Attachment, NO_LINK},
    packet::{Arp, Ethernet, Icmp, Ipv4},
    stages::parse::{L3, L4, not_ours},
};

/// Answers a request for an address of ours.
#[inline(always)]
pub(super) fn arp<E: Environment>(env: &E, attachment: &Attachment, arp: Arp) -> Step<Verdict> {
    let replies_wanted = attachment.flags & Attachment::PASS_ARP_REPLIES != 0;
    if replies_wanted && arp.operation() == Arp::REPLY {
        return Ok(Verdict::Pass);
    }
    let ignored = || not_ours(attachment, DropReason::ArpIgnored);
    if !arp.is_ethernet_ipv4() || arp.operation() != Arp::REQUEST {
        return Err(ignored());
    }
    let key = AddressKey {
        network: attachment.network,
        address: arp.target_address(),
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
pub(super) fn icmp<E: Environment>(env: &E, attachment: &Attachment, ipv4: Ipv4) -> Step<Verdict> {
    let key = AddressKey {
        network: attachment.network,
        address: ipv4.destination(),
    };
    let Some(address) = env.address(&key) else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    let drop = |reason| Verdict::Drop(reason, address.link);
    if usize::from(ipv4.total_length().get()) < Ipv4::LENGTH + Icmp::LENGTH {
        return Err(drop(DropReason::Malformed));
    }
    let icmp = Icmp::at(env, L4).ok_or(drop(DropReason::Truncated))?;
    let ethernet = Ethernet::at(env, 0).ok_or(drop(DropReason::Truncated))?;
    if icmp.type_and_code() != Icmp::ECHO_REQUEST {
        return Err(drop(DropReason::IcmpUnsupported));
    }
    if ethernet.source().is_group() || !is_host(ipv4) {
        return Err(drop(DropReason::InvalidSource));
    }
    let message = Sum::ZERO.replace16(Icmp::ECHO_REQUEST, Icmp::ECHO_REPLY);
    icmp.set_type_and_code(Icmp::ECHO_REPLY);
    // An answer may be all zeros.
    icmp.set_checksum(checksum::update_nonzero(icmp.checksum(), message.fold()));
    // Swapping source and destination leaves the header's sum as it is; a fresh TTL doesn't.
    let (source, destination) = (ipv4.source(), ipv4.destination());
    ipv4.set_source(destination);
    ipv4.set_destination(source);
    renew_ttl(ipv4);
    ethernet.turn_round(attachment.mac);
    Ok(Verdict::Reply)
}

/// Whether the packet's source can be a host's address, and not the destination itself.
#[inline(always)]
pub(super) fn is_host(ipv4: Ipv4) -> bool {
    let source = ipv4.source().get();
    let first = source >> 24;
    // 0/8 "this network", 127/8 loopback, 224/4 multicast, 240/4 reserved with broadcast
    // (RFC 6890): none is ever a source.
    first != 0 && first != 127 && first < 224 && ipv4.source() != ipv4.destination()
}

/// Sets the TTL of what the gateway sends itself, the checksum with it.
#[inline(always)]
fn renew_ttl(ipv4: Ipv4) {
    let word = |ttl| Be16::from_raw(u16::from_ne_bytes([ttl, 0]));
    let delta = Sum::ZERO.replace16(word(ipv4.ttl()), word(Ipv4::DEFAULT_TTL));
    ipv4.set_ttl(Ipv4::DEFAULT_TTL);
    ipv4.set_checksum(checksum::update(ipv4.checksum(), delta.fold()));
}

/// The layout that `renew_ttl` and `TTL_DECREMENT` rely on: the TTL is the first byte of its word.
const _: () = assert!(TTL_DECREMENT == !u16::from_ne_bytes([1, 0]) && (L3 + 8).is_multiple_of(2));
