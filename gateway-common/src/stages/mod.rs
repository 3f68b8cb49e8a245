//! The stages of a packet's way, one file each, and the way itself.

mod admission;
mod attachment;
mod backend;
mod established;
mod forward;
mod handshake;
mod local;
mod neighbour;
mod next_hop;
mod open;
mod parse;
mod reset;
mod rewrite;
mod source_nat;

use parse::{Arrival, Frame};

use crate::{
    Environment, Family, Step, V4, V6, Verdict,
    flow::Table,
    maps::{Attachment, Statistic},
};

pub use source_nat::FIRST_PORT;

/// Decides about one packet, rewrites it, and counts what was decided.
///
/// The verdict is left to be carried out: pass, drop, send back (`Reply`, `Reset`), or redirect.
#[inline(always)]
pub fn process<E: Environment>(env: &mut E) -> Verdict {
    let verdict = match decide(env) {
        Ok(verdict) | Err(verdict) => verdict,
    };
    match verdict {
        Verdict::Redirect(_) => env.count(Statistic::Forwarded),
        Verdict::Pass => env.count(Statistic::Passed),
        Verdict::Reply => env.count(Statistic::Replied),
        Verdict::Drop(reason, link) => env.count_drop(reason, link),
        Verdict::Reset(reason, link) => {
            env.count_drop(reason, link);
            env.count(Statistic::ResetsSent);
        }
    }
    verdict
}

/// The packet's way. Any stage may end it with a verdict.
#[inline(always)]
fn decide<E: Environment>(env: &mut E) -> Step<Verdict> {
    let attachment = attachment::find(env)?;
    match parse::frame(env, &attachment)? {
        Frame::Arp(arp) => local::arp(env, &attachment, arp),
        Frame::Ipv4 => Ok(Verdict::from_bits(ipv4(env, &attachment))),
        Frame::Ipv6 => Ok(Verdict::from_bits(ipv6(env, &attachment))),
    }
}

/// The way of an IPv4 packet. A function of its own in the kernel, as the other family's: the stack
/// holds either's keys and entries, but not both. The verdict comes back in a register, since the
/// verifier does not let the unused bytes of a value in memory be copied.
#[inline(never)]
fn ipv4<E: Environment>(env: &mut E, attachment: &Attachment) -> u64 {
    let arrival = parse::ipv4(env, attachment);
    bits(arrival.and_then(|arrival| carry::<V4, E>(env, attachment, arrival)))
}

/// The way of an IPv6 packet.
#[inline(never)]
fn ipv6<E: Environment>(env: &mut E, attachment: &Attachment) -> u64 {
    let arrival = parse::ipv6(env, attachment);
    bits(arrival.and_then(|arrival| carry::<V6, E>(env, attachment, arrival)))
}

#[inline(always)]
fn bits(step: Step<Verdict>) -> u64 {
    match step {
        Ok(verdict) | Err(verdict) => verdict.to_bits(),
    }
}

/// The way of a packet of either family.
#[inline(always)]
fn carry<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    arrival: Arrival<F>,
) -> Step<Verdict> {
    let segment = match arrival {
        Arrival::Echo(echo) => return local::echo(env, attachment, &echo),
        Arrival::Neighbour(solicitation) => {
            return neighbour::solicited(env, attachment, solicitation);
        }
        Arrival::Segment(segment) => segment,
    };
    if let Some(flow) = established::find(env, &segment)?
        && let Some(hop) = next_hop::find(env, &segment, &flow, Table::Established)?
    {
        return forward::forward(env, &segment, &flow, &hop);
    }
    if let Some(flow) = handshake::find(env, &segment)?
        && let Some(hop) = next_hop::find(env, &segment, &flow, Table::Embryonic)?
    {
        return forward::forward(env, &segment, &flow, &hop);
    }
    let admitted = admission::admit(env, attachment, &segment)?;
    let chosen = backend::choose(env, attachment, &segment, &admitted)?;
    let flow = open::open(env, attachment, &segment, &admitted, &chosen)?;
    forward::forward(env, &segment, &flow, &chosen.hop())
}
