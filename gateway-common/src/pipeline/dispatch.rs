//! The dispatcher, and the entry points of the subprograms.

use crate::{
    drop_reason::DropReason,
    family::{V4, V6},
    maps::{Attachment, NO_CONNECTION},
    packet::{EtherType, Ethernet},
    pipeline::{
        Subprogram, fast_path,
        icmp_related::relay_icmp_error,
        ingress::{
            attachment,
            ip_packet::IpPacket,
            parse::{self, Frame},
        },
        local::arp::reply_arp,
        open::open_flow,
        reject::{Reject, reject},
        slow_path::{forward_nat46, slow_path, slow_path_v6},
    },
    platform::Platform,
    verdict::{Exit, ExitKind, StageResult, Verdict},
};

/// Runs a part; the argument is the bits of the turn that led to it, and so is the result.
#[inline(always)]
pub fn run_subprogram<E: Platform>(env: &mut E, subprogram: Subprogram, argument: u64) -> u64 {
    let exit = match subprogram {
        Subprogram::FastPathV4 => into_exit(fast_path::run::<V4, E>(env)),
        Subprogram::FastPathV6 => into_exit(fast_path::run::<V6, E>(env)),
        Subprogram::SlowPathV4 => with_ipv4(env, |env, attachment, packet| {
            slow_path(env, attachment, packet, Exit::from_bits(argument))
        }),
        Subprogram::SlowPathV6 => with_ipv6(env, |env, attachment, packet| {
            slow_path_v6(env, attachment, packet, Exit::from_bits(argument))
        }),
        Subprogram::OpenFlowV4 => with_ipv4(env, open_flow),
        Subprogram::OpenFlowV6 => with_ipv6(env, open_flow),
        Subprogram::RejectV4 => with_ipv4(env, |env, attachment, packet| {
            reject(env, attachment, packet, argument)
        }),
        Subprogram::RejectV6 => with_ipv6(env, |env, attachment, packet| {
            reject(env, attachment, packet, argument)
        }),
        Subprogram::IcmpRelatedV4 => with_ipv4(env, relay_icmp_error),
        Subprogram::IcmpRelatedV6 => with_ipv6(env, relay_icmp_error),
        Subprogram::Nat46 => with_ipv4(env, forward_nat46),
        Subprogram::NonIp => handle_non_ip(env),
    };
    exit.to_bits()
}

/// Leads the packet from part to part.
#[inline(always)]
pub(crate) fn dispatch<E: Platform>(env: &mut E) -> Verdict {
    let ether_type = Ethernet::at(env, 0).map(Ethernet::ether_type);
    let mut exit = match ether_type {
        Some(EtherType::IPV4) => Exit::from_bits(env.call_subprogram(Subprogram::FastPathV4, 0)),
        Some(EtherType::IPV6) => Exit::from_bits(env.call_subprogram(Subprogram::FastPathV6, 0)),
        _ => Exit::SLOW_PATH,
    };
    // Nearly all packets end here, so nothing else is looked at before.
    if let Some(slot) = exit.redirect_slot() {
        return Verdict::Redirect(slot);
    }
    let (slow_path, open_flow, reject, icmp_related) = match ether_type {
        Some(EtherType::IPV4) => (
            Subprogram::SlowPathV4,
            Subprogram::OpenFlowV4,
            Subprogram::RejectV4,
            Subprogram::IcmpRelatedV4,
        ),
        Some(EtherType::IPV6) => (
            Subprogram::SlowPathV6,
            Subprogram::OpenFlowV6,
            Subprogram::RejectV6,
            Subprogram::IcmpRelatedV6,
        ),
        _ => (
            Subprogram::NonIp,
            Subprogram::OpenFlowV4,
            Subprogram::RejectV4,
            Subprogram::IcmpRelatedV4,
        ),
    };
    if exit == Exit::SLOW_PATH || exit == Exit::NO_ESTABLISHED_FLOW {
        exit = Exit::from_bits(env.call_subprogram(slow_path, exit.to_bits()));
    }
    if exit == Exit::ICMP_RELATED {
        exit = Exit::from_bits(env.call_subprogram(icmp_related, 0));
    }
    if exit == Exit::NAT46 {
        exit = Exit::from_bits(env.call_subprogram(Subprogram::Nat46, 0));
    }
    if exit == Exit::OPEN_FLOW {
        exit = Exit::from_bits(env.call_subprogram(open_flow, 0));
        if exit == Exit::REPROCESS || exit == Exit::SLOW_PATH {
            exit = Exit::from_bits(env.call_subprogram(slow_path, exit.to_bits()));
        }
        if exit == Exit::NAT46 {
            exit = Exit::from_bits(env.call_subprogram(Subprogram::Nat46, 0));
        }
    }
    if Reject::from_exit(exit).is_some() {
        exit = Exit::from_bits(env.call_subprogram(reject, exit.to_bits()));
    }
    match exit.kind() {
        ExitKind::Done(verdict) => verdict,
        // What was opened a moment ago is gone again.
        _ => Verdict::Drop(DropReason::ConfigRace, NO_CONNECTION),
    }
}

#[inline(always)]
fn into_exit(result: StageResult<Exit>) -> Exit {
    match result {
        Ok(exit) | Err(exit) => exit,
    }
}

/// What is not IP.
#[inline(always)]
fn handle_non_ip<E: Platform>(env: &mut E) -> Exit {
    into_exit(attachment::find_attachment(env).and_then(|attachment| {
        match parse::classify_frame(env, &attachment)? {
            Frame::Arp(arp) => reply_arp(env, &attachment, arp),
            // Never: that has a way of its own.
            Frame::Ip => Ok(Exit::PASS),
        }
    }))
}

/// Reads an IPv4 packet's headers for a part of its way.
#[inline(always)]
fn with_ipv4<E: Platform>(
    env: &mut E,
    stage: impl FnOnce(&mut E, &Attachment, &IpPacket<V4>) -> StageResult<Exit>,
) -> Exit {
    into_exit(attachment::find_attachment(env).and_then(|attachment| {
        let packet = parse::parse_ipv4(env, &attachment)?;
        stage(env, &attachment, &packet)
    }))
}

/// Reads an IPv6 packet's headers for a part of its way.
#[inline(always)]
fn with_ipv6<E: Platform>(
    env: &mut E,
    stage: impl FnOnce(&mut E, &Attachment, &IpPacket<V6>) -> StageResult<Exit>,
) -> Exit {
    into_exit(attachment::find_attachment(env).and_then(|attachment| {
        let packet = parse::parse_ipv6(env, &attachment)?;
        stage(env, &attachment, &packet)
    }))
}
