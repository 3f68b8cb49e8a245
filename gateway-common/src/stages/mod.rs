//! The stages of a packet's way, one file each, and the way itself.

mod admission;
mod attachment;
mod backend;
mod established;
mod forward;
mod handshake;
mod local;
mod next_hop;
mod open;
mod parse;
mod reset;
mod rewrite;
mod source_nat;

use parse::Arrival;

use crate::{Environment, Step, Verdict, flow::Table, maps::Statistic};

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
    let segment = match parse::parse(env, &attachment)? {
        Arrival::Arp(arp) => return local::arp(env, &attachment, arp),
        Arrival::Icmp(ipv4) => return local::icmp(env, &attachment, ipv4),
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
    let admitted = admission::admit(env, &attachment, &segment)?;
    let chosen = backend::choose(env, &attachment, &segment, &admitted)?;
    let flow = open::open(env, &attachment, &segment, &admitted, &chosen)?;
    forward::forward(env, &segment, &flow, &chosen.hop())
}
