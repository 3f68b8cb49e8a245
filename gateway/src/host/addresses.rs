//! Addresses that the host has itself, as the kernel tells of them.

use std::collections::HashMap;

use anyhow::Result;

use crate::{
    host::dirty_set::ScanPlan,
    model::{HostAddresses, address::check_host},
    netlink::{Netlink, interface_name},
};

/// Returns the host's own addresses, if they can have changed: the kernel's news of addresses are looked at with
/// everything else, and those of interfaces tell of new names.
pub(crate) async fn scan_host_addresses(
    netlink: &Netlink,
    plan: &ScanPlan,
) -> Result<Option<HostAddresses>> {
    if !plan.is_full && plan.links.is_empty() {
        return Ok(None);
    }
    let addresses = netlink.addresses().await?;
    // Others can't be asked for, and every interface may have one of them.
    let assignable = addresses
        .into_iter()
        .filter(|(_, address)| check_host("", *address).is_ok());
    let mut names = HashMap::new();
    let named = assignable.filter_map(|(index, address)| {
        // None for one that is gone again, of which the kernel tells.
        let name = names.entry(index).or_insert_with(|| interface_name(index));
        Some((address, name.clone()?))
    });
    Ok(Some(named.collect()))
}
