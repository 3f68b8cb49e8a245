//! The pipeline: the stages that a packet passes, each in a file of its own, in folders by topic.
//!
//! The pipeline is cut into [`Subprogram`](crate::subprogram::Subprogram)s: `entry` has the stages of each, and
//! `dispatch` says which one runs next.

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

pub use entry::run_subprogram;
pub use forward::{
    identification::{NO_FREE_IDENTIFICATION, allocate_identification},
    tcp_options::parse_options as parse_syn_options,
};
pub use open::snat::{MIN_SOURCE_PORT, SOURCE_PORT_COUNT};

use crate::{maps::Statistic, platform::Platform, verdict::Verdict};

/// Decides about one packet, rewrites it, and counts the decision. The caller carries the verdict out.
#[inline(always)]
pub fn process<E: Platform>(env: &mut E) -> Verdict {
    let verdict = dispatch::dispatch(env);
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
