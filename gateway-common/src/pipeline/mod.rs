//! The stages of a packet's way, one file each, and the way itself.
//!
//! The way is cut into [`Part`]s: what every packet passes, and what few do. In the kernel each is a
//! function that the verifier looks at by itself, and that has the stack to itself; a part that can't
//! go on names the next by its [`Turn`]. Each part reads the headers anew: nothing but the packet is
//! handed on.

mod conntrack;
mod dispatch;
mod fast_path;
mod forward;
mod icmp_related;
mod ingress;
mod local;
mod open;
mod rate_limit;
mod reject;
mod slow_path;

pub use dispatch::run_subprogram;
pub use forward::{
    identification::{NO_FREE_IDENTIFICATION, allocate_identification},
    tcp_options::parse_options as parse_syn_options,
};
pub use open::snat::{MIN_SOURCE_PORT, SOURCE_PORT_COUNT};

use crate::{maps::Statistic, platform::Platform, verdict::Verdict};

/// A part of the way. Two of each, for the two families, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprogram {
    /// A plain packet of an established flow is forwarded; others go on.
    FastPathV4,
    /// The same for IPv6.
    FastPathV6,
    /// Headers are read, the gateway's own addresses answered for, known flows forwarded.
    SlowPathV4,
    /// The same for IPv6.
    SlowPathV6,
    /// A flow is opened; its first packet goes its way once more then.
    OpenFlowV4,
    /// The same for IPv6.
    OpenFlowV6,
    /// The sender is told why its packet goes no further.
    RejectV4,
    /// The same for IPv6.
    RejectV6,
    /// An ICMP error goes to the sender of the packet in it.
    IcmpRelatedV4,
    /// The same for IPv6.
    IcmpRelatedV6,
    /// An IPv4 packet of a flow whose other side is IPv6 is forwarded.
    Nat46,
    /// What is not IP.
    NonIp,
}

/// Decides about one packet, rewrites it, and counts what was decided.
///
/// The verdict is left to be carried out: pass, drop, send back (`Reply`, `Reset`, `Error`), or
/// redirect.
#[inline(always)]
pub fn process<E: Platform>(env: &mut E) -> Verdict {
    let verdict = dispatch::dispatch(env);
    match verdict {
        Verdict::Redirect(_) => env.count(Statistic::Forwarded),
        Verdict::Pass => env.count(Statistic::PassedToHost),
        Verdict::Reply => env.count(Statistic::LocalReplies),
        Verdict::Drop(reason, connection_slot) | Verdict::IcmpError(reason, connection_slot) => {
            env.count_drop(reason, connection_slot)
        }
        Verdict::TcpReset(reason, connection_slot) => {
            env.count_drop(reason, connection_slot);
            env.count(Statistic::TcpResetsSent);
        }
    }
    verdict
}
