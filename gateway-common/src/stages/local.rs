//! Stage 3: an address of ours behaves as a network card does. ARP is answered (RFC 826; probes
//! too, which defends the address as RFC 5227 wants it), and so are echo requests (RFC 1122,
//! section 3.2.2.6; RFC 4443, section 4.2). Neighbour discovery is in [`super::neighbour`].

use crate::{
    Be32, DropReason, Environment, Family, IpAddress, Step, Turn, V4,
    checksum::{self, Sum},
    family::Header as _,
    maps::{Address, AddressKey, Attachment, DatagramKey, FragmentRecord, NO_LINK},
    packet::{Arp, Ethernet, Icmp, Mac, protocol},
    stages::{
        parse::{not_ours, own_address},
        transport::Message,
    },
};

/// Answers a request for an address of ours.
#[inline(always)]
pub(super) fn arp<E: Environment>(env: &mut E, attachment: &Attachment, arp: Arp) -> Step<Turn> {
    let ignored = not_ours(attachment, DropReason::ArpIgnored);
    if !arp.is_ethernet_ipv4() {
        return Err(ignored);
    }
    let (sender, target) = (arp.sender_address(), arp.target_address());
    let probe = sender == Be32::new(0);
    let claim = V4::widen(if probe { target } else { sender });
    claimed(env, attachment, arp.sender_mac(), claim, probe)?;
    if arp.operation() == Arp::REPLY && attachment.flags & Attachment::PASS_NEIGHBOURS != 0 {
        return Err(Turn::PASS);
    }
    if arp.operation() != Arp::REQUEST {
        return Err(ignored);
    }
    own_address::<V4, E>(env, attachment.network, target).ok_or(ignored)?;
    let ethernet = Ethernet::at(env, 0).ok_or(ignored)?;
    // A frame can name two senders. The one that ARP names is the one who asks.
    let unicast = probe || V4::is_unicast(sender);
    if ethernet.source().is_group() || arp.sender_mac().is_group() || !unicast {
        return Err(Turn::drop(DropReason::InvalidSource, NO_LINK));
    }
    ethernet.turn_round(attachment.mac.mac());
    arp.answer(attachment.mac.mac());
    Ok(Turn::REPLY)
}

/// Notes a station that says that an address of ours is its own. One that only asks whether it may
/// have it (a probe) contends for it while we have not taken it ourselves; afterwards it is told
/// that it may not (RFC 5227, sections 2.1.1 and 2.4; RFC 4862, section 5.4.3).
#[inline(always)]
pub(super) fn claimed<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    station: Mac,
    address: IpAddress,
    probe: bool,
) -> Step<()> {
    let key = AddressKey {
        network: attachment.network,
        address,
    };
    match env.address(&key) {
        Some(found) if station != attachment.mac.mac() => {
            if probe && found.kind != Address::TENTATIVE {
                return Ok(());
            }
            env.note_conflict(&key, station);
            Err(Turn::drop(DropReason::AddressConflict, found.link))
        }
        _ => Ok(()),
    }
}

/// Answers an echo request to an address of ours.
#[inline(always)]
pub(super) fn echo<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    message: &Message<F>,
) -> Step<Turn> {
    let header = message.header(env)?;
    let icmp = message.icmp(env)?;
    let (asker, asked) = (header.source(), header.destination());
    let Some(address) = own_address::<F, E>(env, attachment.network, asked) else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    let drop = |reason| Turn::drop(reason, address.link);
    let ethernet = Ethernet::at(env, 0).ok_or(drop(DropReason::Truncated))?;
    let (request, reply) = if F::ICMP == protocol::ICMPV6 {
        (Icmp::ECHO_REQUEST_V6, Icmp::ECHO_REPLY_V6)
    } else {
        (Icmp::ECHO_REQUEST, Icmp::ECHO_REPLY)
    };
    if icmp.type_and_code() != request {
        return Err(drop(DropReason::IcmpUnsupported));
    }
    if ethernet.source().is_group() || !F::is_host(asker, asked) {
        return Err(drop(DropReason::InvalidSource));
    }
    let change = Sum::ZERO.replace16(request, reply);
    icmp.set_type_and_code(reply);
    // An answer may be all zeros.
    icmp.set_checksum(checksum::update_nonzero(icmp.checksum(), change.fold()));
    // Swapping source and destination leaves every sum as it is; a fresh hop limit doesn't.
    header.set_addresses(asked, asker);
    header.renew();
    ethernet.turn_round(attachment.mac.mac());
    if message.fragment.is_first() {
        let key = DatagramKey::<F> {
            network: attachment.network,
            source: asker,
            destination: asked,
            id: message.fragment.id.raw(),
            protocol: u32::from(F::ICMP),
        };
        let record = FragmentRecord {
            seen: env.now().0,
            ..FragmentRecord::default()
        };
        F::note_fragments(env, &key, &record);
    }
    Ok(Turn::REPLY)
}
