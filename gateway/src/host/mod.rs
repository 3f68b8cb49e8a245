//! The host: interfaces and their problems, attachment of the program, addresses, VLAN offloads, and the next hops of
//! backends.

mod addresses;
mod attach;
mod diagnose;
pub mod dirty_set;
pub mod next_hops;
pub mod routes;
mod scan;
pub mod scan_plan;
mod sockets;
pub mod status;
pub mod traffic;
mod uses;
mod vlan_tags;

use std::collections::{BTreeMap, BTreeSet};

use crate::host::vlan_tags::VlanTagVisibility;

pub(crate) use scan::Scan;
pub(crate) use uses::scan_host_uses;

/// Attachments that this process manages on the host.
#[derive(Debug, Default)]
pub struct Host {
    /// Interfaces that this process has attached its program to.
    attached: BTreeSet<u32>,
    /// Reasons why attaching failed, by interface number.
    attach_errors: BTreeMap<u32, String>,
    /// Length of the largest packet that the kernel redirects, if it has a limit.
    max_packet_len: Option<u32>,
    /// True if the program runs in native mode on any interface.
    any_native: bool,
    /// True if the neighbour entries of earlier versions were looked for.
    managed_neighbours_removed: bool,
    /// Number of times that each interface has got its carrier, by interface number.
    carrier_ups: BTreeMap<u32, u32>,
    vlan_tags: VlanTagVisibility,
}

impl Host {
    /// Returns a host that was not scanned yet. `accept_unseen_vlan_tags` states that the operator accepts VLAN tags
    /// that the program does not see.
    #[must_use]
    pub fn new(accept_unseen_vlan_tags: bool) -> Self {
        Self {
            vlan_tags: VlanTagVisibility::new(accept_unseen_vlan_tags),
            ..Self::default()
        }
    }
}
