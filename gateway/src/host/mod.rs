//! The host as the agent sees it: interfaces, neighbours, VLAN offloads, addresses.

pub(crate) mod addresses;
pub mod dirty_set;
pub mod next_hops;
pub(crate) mod vlan_tags;
