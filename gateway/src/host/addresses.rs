//! Scan of the host's own addresses.

use std::collections::HashMap;

use anyhow::Result;

use crate::{
    host::scan_plan::ScanPlan,
    model::{HostAddresses, address::check_host},
    netlink::{HostAddress, Netlink, interface_name},
};

/// Returns the addresses of the host's interfaces, or `None` if they can't have changed. Address events cause a full
/// scan, and interface events may mean that an interface has another name.
pub(super) async fn scan_host_addresses(
    netlink: &Netlink,
    plan: &ScanPlan,
) -> Result<Option<Vec<HostAddress>>> {
    if !plan.is_full && plan.links.is_empty() {
        return Ok(None);
    }
    Ok(Some(netlink.addresses().await?))
}

/// Returns the addresses that no object may have, with the names of their interfaces.
pub(super) fn assigned_addresses(addresses: &[HostAddress]) -> HostAddresses {
    // The other addresses, such as link-local ones, can't belong to an object, and every interface may have them.
    let assignable = addresses
        .iter()
        .filter(|own| check_host("", own.address).is_ok());
    let mut names = HashMap::new();
    let named = assignable.filter_map(|own| {
        // `None` if the interface was removed meanwhile, which the kernel reports as an event of its own.
        let name = names
            .entry(own.ifindex)
            .or_insert_with(|| interface_name(own.ifindex));
        Some((own.address, name.clone()?))
    });
    named.collect()
}
