//! Observed state of the host, as shown to users.

use std::collections::{BTreeMap, BTreeSet};

use log::{info, warn};

use crate::{
    bpf::loader::AttachMode, compile::observed::BackendKey, host::next_hops::NextHopResult,
    netlink::Link,
};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// Interfaces that networks name, by name.
    pub attachments: BTreeMap<String, AttachmentState>,
    /// Backends that can't be reached.
    pub unreachable: BTreeSet<BackendKey>,
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
                if self.unreachable.insert(key.clone()) {
                    warn!(
                        "host: backend unreachable backend={address} network={network} reason=\"{reason}\""
                    );
                }
            }
            NextHopResult::Resolved(_) => {
                if self.unreachable.remove(key) {
                    info!("host: backend reachable backend={address} network={network}");
                }
            }
            // What was unreachable stays so until there is an answer.
            NextHopResult::Pending(_) => {}
            NextHopResult::Unused => {
                self.unreachable.remove(key);
            }
        }
    }
}
