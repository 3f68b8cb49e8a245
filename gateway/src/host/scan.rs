//! Scan of the dirty parts of the host: interfaces, addresses, VLAN offloads and next hops.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::{
    compile::observed::{BackendKey, Interface},
    host::{
        Host,
        addresses::{assigned_addresses, scan_host_addresses},
        routes::{BackendRoute, find_routes, remove_managed_neighbours},
        scan_plan::ScanPlan,
    },
    model::HostAddresses,
    neighbour::InterfaceAddress,
    netlink::{HostAddress, Kernel, Link, Netlink},
};

/// Result of a scan.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Interfaces that exist, by name.
    pub(crate) links: BTreeMap<String, Link>,
    /// Addresses of the host's interfaces, if they can have changed.
    addresses: Option<Vec<HostAddress>>,
    pub(crate) routes: BTreeMap<BackendKey, BackendRoute>,
}

impl Scan {
    /// Returns the host's own addresses that no object may have, if they can have changed.
    pub(crate) fn assigned_addresses(&self) -> Option<HostAddresses> {
        self.addresses.as_deref().map(assigned_addresses)
    }

    /// Returns the addresses that solicitations may be sent from, if they can have changed.
    pub(crate) fn sender_addresses(&self) -> Option<impl Iterator<Item = InterfaceAddress>> {
        let addresses = self.addresses.as_ref()?.iter();
        Some(addresses.filter_map(|own| {
            Some(InterfaceAddress {
                ifindex: own.ifindex,
                address: own.address,
                prefix: own.prefix?,
                is_usable: own.is_usable,
            })
        }))
    }
}

impl Host {
    /// Carries out a scan plan. VLAN offloads are disabled and multicast is enabled where that is needed.
    ///
    /// # Errors
    /// When a netlink request fails.
    pub(crate) async fn scan(
        &mut self,
        netlink: &Netlink,
        kernel: Kernel,
        plan: &ScanPlan,
    ) -> Result<Scan> {
        let ScanPlan {
            is_full,
            links,
            multicast_interfaces,
            backends,
        } = plan;
        let backend_interfaces = backends.values().flatten();
        let names = links.keys().chain(multicast_interfaces);
        let links = list_links(netlink, plan, names.chain(backend_interfaces)).await?;
        let addresses = scan_host_addresses(netlink, plan).await?;
        let features = netlink.features();
        self.vlan_tags
            .disable_offloads(features, plan, &links)
            .await;
        for link in links.values() {
            if multicast_interfaces.contains(&link.name) && !link.all_multicast {
                netlink.receive_all_multicast(link.ifindex).await?;
            }
        }
        let routes = find_routes(netlink, backends, *is_full, &links).await?;
        if *is_full && !self.managed_neighbours_removed {
            remove_managed_neighbours(netlink, &routes).await;
            self.managed_neighbours_removed = true;
        }
        self.max_packet_len = kernel.max_packet_len();
        Ok(Scan {
            links,
            addresses,
            routes,
        })
    }

    /// Returns the names of scanned interfaces that have got their carrier again since the last scan. A short loss of the
    /// carrier is over before it is seen.
    pub(crate) fn carrier_returns(&mut self, scan: &Scan) -> BTreeSet<String> {
        let mut returned = BTreeSet::new();
        for link in scan.links.values() {
            let before = self.carrier_ups.insert(link.ifindex, link.carrier_ups);
            if before.is_some_and(|before| before != link.carrier_ups) {
                returned.insert(link.name.clone());
            }
        }
        returned
    }

    /// Returns the scanned interfaces, with `None` for those that can't carry packets of a network. A full plan covers
    /// the `known` interfaces as well.
    pub(crate) fn usable_interfaces<'a>(
        &self,
        plan: &'a ScanPlan,
        links: &BTreeMap<String, Link>,
        known: impl Iterator<Item = &'a String>,
    ) -> Vec<(String, Option<Interface>)> {
        let mut names: BTreeSet<&String> = plan.links.keys().collect();
        if plan.is_full {
            names.extend(known);
        }
        let interfaces = names.into_iter().map(|name| {
            let network = plan.links.get(name).and_then(Option::as_ref);
            let link = network.and_then(|_| links.get(name));
            let interface = link
                .and_then(usable_interface)
                .filter(|interface| self.vlan_tags.are_tags_visible(interface.ifindex))
                .map(|interface| limit_mtu(interface, self.max_packet_len));
            (name.clone(), interface)
        });
        interfaces.collect()
    }
}

/// Returns the interfaces of these names that exist; with a full plan, all that networks name.
pub(super) async fn list_links<'a>(
    netlink: &Netlink,
    plan: &ScanPlan,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    if plan.is_full {
        let all = netlink.links().await?.into_iter();
        let all = all.filter(|link| plan.links.contains_key(&link.name));
        links.extend(all.map(|link| (link.name.clone(), link)));
        return Ok(links);
    }
    for name in names.collect::<BTreeSet<_>>() {
        if let Some(link) = netlink.link(name).await? {
            links.insert(name.clone(), link);
        }
    }
    Ok(links)
}

/// Returns the interface, if it is an Ethernet interface and set up. It may have no carrier.
pub(super) fn usable_interface(link: &Link) -> Option<Interface> {
    Some(Interface {
        ifindex: link.ifindex,
        mac: link.mac.filter(|_| link.admin_up)?,
        mtu: link.mtu,
        has_carrier: link.up,
    })
}

/// Returns the interface with its MTU limited to what the kernel redirects.
fn limit_mtu(interface: Interface, max_packet_len: Option<u32>) -> Interface {
    Interface {
        mtu: max_packet_len.map_or(interface.mtu, |largest| interface.mtu.min(largest)),
        ..interface
    }
}
