//! Observed state of the host, as shown to users.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use log::{info, warn};

use crate::{
    bpf::loader::AttachMode, compile::observed::BackendKey, host::next_hops::NextHopResult,
    log_limit::LogLimit, model::Reference, netlink::Link,
};

/// Number of lines a minute about backends of a network that become reachable, and about those that become unreachable.
/// A backend whose MAC address changes all the time could otherwise fill the log.
const MAX_LINES: u32 = 20;

/// State of an attachment's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentState {
    /// Interface as the kernel reports it, if it exists.
    pub link: Option<Link>,
    /// Mode in which the program is attached, if it is.
    pub mode: Option<AttachMode>,
    /// Problems, each with what to do about it.
    pub problems: Vec<String>,
    /// Remarks about conditions that the agent can't check or correct itself.
    pub notes: Vec<String>,
}

/// Observed state of the host, as shown to users.
#[derive(Debug, Default)]
pub struct HostStatus {
    /// Interfaces that networks name, by name.
    pub attachments: BTreeMap<String, AttachmentState>,
    /// Backends that can't be reached, or have not confirmed yet that they can.
    pub unreachable: BTreeSet<BackendKey>,
    limits: HashMap<Reference, LineLimits>,
}

/// Limits of the lines about the backends of a network.
#[derive(Debug)]
struct LineLimits {
    unreachable: LogLimit,
    reachable: LogLimit,
}

/// Result of a scan of interfaces.
#[derive(Debug)]
pub(crate) struct InterfaceScan {
    /// True if the scan covered all interfaces.
    pub(super) is_full: bool,
    /// `None` for an interface that no network names any more.
    pub(super) states: BTreeMap<String, Option<AttachmentState>>,
}

impl HostStatus {
    /// Records the results of a scan of interfaces, and logs new problems and recoveries.
    pub(crate) fn update_interfaces(&mut self, scan: InterfaceScan) {
        if scan.is_full {
            self.attachments
                .retain(|name, _| scan.states.contains_key(name));
        }
        for (name, state) in scan.states {
            let Some(state) = state else {
                self.attachments.remove(&name);
                continue;
            };
            let old = self.attachments.get(&name);
            let known = old.is_some();
            let old = old.map_or(&[][..], |state| &state.problems);
            for problem in &state.problems {
                if !old.contains(problem) {
                    warn!("host: interface problem interface={name} problem=\"{problem}\"");
                }
            }
            if state.problems.is_empty() && (!old.is_empty() || !known) {
                info!("host: interface ok interface={name}");
            }
            self.attachments.insert(name, state);
        }
    }

    /// Records the next hop of a backend, and logs a new problem or a recovery.
    pub(crate) fn update_next_hop(&mut self, key: &BackendKey, result: &NextHopResult) {
        let (network, address) = key;
        match result {
            NextHopResult::Unreachable(reason) => {
                if self.unreachable.insert(key.clone())
                    && let Some(suffix) = self.limits(network).unreachable.admit()
                {
                    warn!(
                        "host: backend unreachable backend={address} network={network} reason=\"{reason}\"{suffix}"
                    );
                }
            }
            NextHopResult::Resolved {
                is_confirmed: true, ..
            } => {
                if self.unreachable.remove(key)
                    && let Some(suffix) = self.limits(network).reachable.admit()
                {
                    info!("host: backend reachable backend={address} network={network}{suffix}");
                }
            }
            // What was unreachable stays so until there is an answer. An announcement is none.
            NextHopResult::Resolved {
                is_confirmed: false,
                ..
            }
            | NextHopResult::Pending(_) => {}
            NextHopResult::Unused => {
                self.unreachable.remove(key);
            }
        }
    }

    fn limits(&mut self, network: &Reference) -> &LineLimits {
        if !self.limits.contains_key(network) {
            // Networks that are gone have no lines any more.
            self.limits
                .retain(|_, limits| !limits.unreachable.is_idle() || !limits.reachable.is_idle());
        }
        let limits = self.limits.entry(network.clone());
        limits.or_insert_with(|| LineLimits {
            unreachable: LogLimit::with_burst(MAX_LINES),
            reachable: LogLimit::with_burst(MAX_LINES),
        })
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::packet::Mac;

    use super::*;
    use crate::compile::observed::ObservedNextHop;

    fn key(last: u8) -> BackendKey {
        ("provider/net".parse().unwrap(), [10, 1, 0, last].into())
    }

    fn resolved(is_confirmed: bool) -> NextHopResult {
        NextHopResult::Resolved {
            hop: ObservedNextHop {
                interface: "gw-p".to_owned(),
                mac: Mac::new([2, 0, 0, 0, 0, 1]),
            },
            is_confirmed,
        }
    }

    #[test]
    fn only_an_answer_makes_a_backend_reachable() {
        let mut status = HostStatus::default();
        let unreachable = NextHopResult::Unreachable("no answer".to_owned());
        status.update_next_hop(&key(10), &unreachable);
        status.update_next_hop(&key(10), &resolved(false));
        assert!(status.unreachable.contains(&key(10)));
        status.update_next_hop(&key(10), &resolved(true));
        assert!(status.unreachable.is_empty());
    }

    #[test]
    fn lines_about_a_network_are_limited() {
        let mut status = HostStatus::default();
        let unreachable = NextHopResult::Unreachable("no answer".to_owned());
        for _ in 0..MAX_LINES {
            status.update_next_hop(&key(10), &unreachable);
            status.update_next_hop(&key(10), &resolved(true));
        }
        let limits = status.limits(&key(10).0);
        assert_eq!(limits.unreachable.admit(), None);
        assert_eq!(limits.reachable.admit(), None);
        let other = "other/net".parse().unwrap();
        let limits = status.limits(&other);
        assert_eq!(limits.unreachable.admit(), Some(String::new()));
    }
}
