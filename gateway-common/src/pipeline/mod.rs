//! The pipeline: the stages that process a packet, grouped by topic.
//!
//! ```text
//!   frame
//!     │
//!   ingress        interface to network; Ethernet, IP and L4 headers; local addresses
//!     │
//!     ├─► local    reply for a local address: ARP, neighbour discovery, echo ───► reply
//!     │
//!   conntrack      look-up of the flow; TCP state
//!     │ no flow
//!     ├─► open     early drop, admission, backend selection, SNAT, insertion
//!     │
//!   forward        next hop, MTU, TTL, rate limit, rewriting or NAT46 ──────────► redirect
//!
//!   icmp_related   an ICMP error goes to the sender of the embedded packet ─────► redirect
//!   reject         a TCP reset or an ICMP error in place of forwarding ─────────► reset, error
//! ```
//!
//! The pipeline is cut into [`Subprogram`](crate::subprogram::Subprogram)s. `entry` contains the entry point of each,
//! which runs its stages, and `dispatch` decides which one runs next. `fast_path` and `slow_path` put the stages
//! together: the fast path only for plain packets of established flows, the slow path for every packet.
//!
//! # Invariants
//!
//! - A stage returns either a value for the next stage or an [`Exit`](crate::subprogram::Exit).
//! - Headers are bounds-checked in `ingress`, before any other stage accesses them.
//! - Whatever the fast path forwards, the slow path would forward alike.
//! - The early drop precedes the search of the flow table for a SYN, and everything but that search for other packets,
//!   so a flood to unknown or unapproved endpoints costs less than forwarding.
//! - Another CPU may replace a flow's entry while its packet is processed. Before a packet leaves, the entry is checked
//!   once more, and the packet is dropped if its flow is gone.
//! - A call chain has 512 bytes of stack in eBPF. Functions with large values are not inlined, so that they use stack
//!   only while they run.

mod conntrack;
mod dispatch;
mod entry;
mod fast_path;
mod forward;
mod icmp_related;
mod ingress;
mod local;
mod open;
mod rate_limit;
mod reject;
mod slow_path;

pub use conntrack::calls::run_flow_call;
pub use entry::run_subprogram;
pub use forward::{
    identification::{NO_FREE_IDENTIFICATION, allocate_identification},
    tcp_options::parse_options as parse_syn_options,
};
pub use open::snat::{
    MIN_PRIVILEGED_PORT, MIN_SOURCE_PORT, PRIVILEGED_PORT_COUNT, SOURCE_PORT_COUNT,
};
pub use rate_limit::SHARE_SHIFT;

use crate::{maps::Statistic, pipeline::dispatch::dispatch, platform::Platform, verdict::Verdict};

/// Decides about one packet, rewrites it, and counts the decision. The caller carries the verdict out.
#[inline(always)]
pub fn process<E: Platform>(env: &mut E) -> Verdict {
    let verdict = dispatch(env);
    match verdict {
        Verdict::Redirect(_) => env.count(Statistic::Forwarded),
        Verdict::Pass => env.count(Statistic::PassedToHost),
        Verdict::Reply => env.count(Statistic::LocalReplies),
        Verdict::Drop(attribution) | Verdict::IcmpError(attribution) => {
            env.count_drop(attribution);
        }
        Verdict::TcpReset(attribution) => {
            env.count_drop(attribution);
            env.count(Statistic::TcpResetsSent);
        }
    }
    verdict
}
