//! The dispatcher: runs subprograms until one of them exits with a verdict.
//!
//! Each packet starts on the fast path, and most packets end there. Any other exit names the next subprogram:
//!
//! ```text
//!   fast path ──► verdict
//!      │ SLOW_PATH, NO_FLOW
//!      ▼
//!   slow path ──► verdict  ◄───────────────────────┐
//!      │                                           │
//!      ├─ ICMP_RELATED ──► ICMP related ──► verdict│
//!      ├─ NEIGHBOUR_DISCOVERY ──► neighbour discovery ──► verdict
//!      │                                           │
//!      ├─ forward ───────────────────────────────┐ │
//!      │                                         ▼ │
//!      ├─ NAT46 ─────────► NAT46 ─ forward ──► forward ──► verdict
//!      │                     │ OPEN_FLOW         ▲ │
//!      │                     ▼                   │ │
//!      └─ OPEN_FLOW ─────► open flow             │ │
//!                            │ INSERT_FLOW       │ │
//!                            ▼                   │ │
//!                          insert flow ─ forward ┘ │
//!                            └──────────── SLOW_PATH
//!
//!   each of them ── reject, packet too big, TTL exceeded ──► reject ──► verdict
//! ```
//!
//! Frames without an IP header run one subprogram, which answers ARP. `UNTAGGED` after it means that it has removed a
//! priority tag, and the frame starts again.
//!
//! `SLOW_PATH` after the insertion means that another CPU has opened the packet's flow meanwhile.
//!
//! An exit carries over what is known about the packet: the slow path gets it as [`SlowPathHints`], the reject
//! subprogram gets the exit itself, and the one that forwards gets it with the flow.
//!
//! # Invariants
//!
//! - At most `MAX_SUBPROGRAMS` subprograms run for a packet.
//! - A packet opens at most one flow. If that flow has disappeared when the packet is forwarded, the packet is
//!   dropped with the reason [`ConfigRace`](DropReason::ConfigRace).

use crate::{
    drop_reason::{Attribution, DropReason},
    maps::NO_CONNECTION,
    packet::{EtherType, Ethernet},
    platform::Platform,
    subprogram::{Exit, ExitKind, Next, SlowPathHints, Subprogram},
    verdict::Verdict,
};

/// The subprograms of a packet's address family.
struct Subprograms {
    fast_path: Subprogram,
    slow_path: Subprogram,
    icmp_related: Subprogram,
    open_flow: Subprogram,
    insert_flow: Subprogram,
    forward: Subprogram,
    reject: Subprogram,
}

const IPV4: Subprograms = Subprograms {
    fast_path: Subprogram::FastPathV4,
    slow_path: Subprogram::SlowPathV4,
    icmp_related: Subprogram::IcmpRelatedV4,
    open_flow: Subprogram::OpenFlowV4,
    insert_flow: Subprogram::InsertFlowV4,
    forward: Subprogram::ForwardV4,
    reject: Subprogram::RejectV4,
};

const IPV6: Subprograms = Subprograms {
    fast_path: Subprogram::FastPathV6,
    slow_path: Subprogram::SlowPathV6,
    icmp_related: Subprogram::IcmpRelatedV6,
    open_flow: Subprogram::OpenFlowV6,
    insert_flow: Subprogram::InsertFlowV6,
    forward: Subprogram::ForwardV6,
    reject: Subprogram::RejectV6,
};

/// Maximum number of subprograms that run for one packet: fast path, slow path, NAT46, open flow, insert flow, slow path,
/// NAT46, forward, reject.
const MAX_SUBPROGRAMS: u32 = 9;

/// Returns the verdict on the packet.
#[inline(always)]
pub(crate) fn dispatch<E: Platform>(env: &mut E) -> Verdict {
    let exit = match Ethernet::at(env, 0).map(Ethernet::ether_type) {
        Some(EtherType::IPV4) => dispatch_ip(env, &IPV4),
        Some(EtherType::IPV6) => dispatch_ip(env, &IPV6),
        _ => {
            let exit = env.call_subprogram(Subprogram::NonIp, 0);
            // Compared here only, so that IP packets without a tag pay nothing.
            if exit.next() == Next::Untagged {
                dispatch_untagged(env)
            } else {
                exit
            }
        }
    };
    // Nearly all packets end here, so nothing else is checked before.
    if let Some(slot) = exit.redirect_slot() {
        return Verdict::Redirect(slot);
    }
    match exit.kind() {
        ExitKind::Done(verdict) => verdict,
        // The flow that the packet opened was removed immediately.
        _ => Verdict::Drop(Attribution::new(DropReason::ConfigRace, NO_CONNECTION)),
    }
}

/// Runs the subprograms of a frame whose priority tag was removed. Returns the last exit.
#[inline(always)]
fn dispatch_untagged<E: Platform>(env: &mut E) -> Exit {
    match Ethernet::at(env, 0).map(Ethernet::ether_type) {
        Some(EtherType::IPV4) => dispatch_ip(env, &IPV4),
        Some(EtherType::IPV6) => dispatch_ip(env, &IPV6),
        _ => env.call_subprogram(Subprogram::NonIp, 0),
    }
}

/// Runs the subprograms of an IP packet, each named by the exit before it. Returns the last exit.
#[inline(always)]
fn dispatch_ip<E: Platform>(env: &mut E, subprograms: &Subprograms) -> Exit {
    let mut exit = env.call_subprogram(subprograms.fast_path, 0);
    let mut may_open = true;
    for _ in 1..MAX_SUBPROGRAMS {
        exit = match exit.next() {
            Next::Verdict | Next::Untagged => break,
            Next::SlowPath => {
                env.call_subprogram(subprograms.slow_path, SlowPathHints::NONE.to_bits())
            }
            Next::NoFlow => {
                const HINTS: SlowPathHints =
                    SlowPathHints::FLOW_MISSED.union(SlowPathHints::SKIP_EARLY_DROP);
                env.call_subprogram(subprograms.slow_path, HINTS.to_bits())
            }
            Next::Forward => env.call_subprogram(subprograms.forward, exit.to_bits()),
            Next::ForwardNat46 => env.call_subprogram(Subprogram::ForwardNat46, exit.to_bits()),
            Next::InsertFlow => env.call_subprogram(subprograms.insert_flow, 0),
            Next::InsertFlowNat46 => env.call_subprogram(Subprogram::InsertFlowV6, 0),
            Next::IcmpRelated => env.call_subprogram(subprograms.icmp_related, 0),
            Next::NeighbourDiscovery => env.call_subprogram(Subprogram::NeighbourDiscovery, 0),
            Next::Nat46 => env.call_subprogram(Subprogram::Nat46, 0),
            // A packet opens at most one flow.
            Next::OpenFlow if may_open => {
                may_open = false;
                env.call_subprogram(subprograms.open_flow, 0)
            }
            Next::OpenFlow => break,
            Next::Reject => env.call_subprogram(subprograms.reject, exit.to_bits()),
        };
    }
    exit
}
