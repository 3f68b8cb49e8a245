//! Scan of the host's own addresses.

use std::collections::HashMap;

use anyhow::Result;

use crate::{
    host::scan_plan::ScanPlan,
    model::{HostAddresses, address::check_host},
    netlink::{Netlink, interface_name},
};

/// Returns the host's own addresses, or `None` if they can't have changed. Address events cause a full scan, and
/// interface events may mean that an interface has another name.
pub(crate) async fn scan_host_addresses(
    netlink: &Netlink,
    plan: &ScanPlan,
) -> Result<Option<HostAddresses>> {
    if !plan.is_full && plan.links.is_empty() {
        return Ok(None);
    }
    let addresses = netlink.addresses().await?;
    // The other addresses, such as link-local ones, can't belong to an object, and every interface may have them.
    let assignable = addresses
        .into_iter()
        .filter(|(_, address)| check_host("", *address).is_ok());
    let mut names = HashMap::new();
    let named = assignable.filter_map(|(index, address)| {
        // `None` if the interface was removed meanwhile, which the kernel reports as an event of its own.
        let name = names.entry(index).or_insert_with(|| interface_name(index));
        Some((address, name.clone()?))
    });
    Ok(Some(named.collect()))
}
