//! Host refresh: scans the dirty parts of the host, and brings the result into the maps.

use std::{sync::Arc, time::Instant};

use anyhow::Result;

use crate::{
    agent::{Agent, OutgoingFrame, controller::Controller},
    compile::observed::Interface,
    host::{Host, Scan, scan_host_uses, scan_plan::ScanPlan},
};

impl Agent {
    /// Finds out what the host itself uses its interfaces for. To be called before a change of networks, which must not
    /// cut the host off by accident.
    ///
    /// # Errors
    /// When a netlink request fails, or the host's sockets can't be read.
    pub async fn scan_host_uses(&self) -> Result<()> {
        let uses = scan_host_uses(&self.netlink).await?;
        self.controller.lock().await.observed.host_uses = uses;
        Ok(())
    }

    /// Scans the dirty parts of the host, attaches the program where it is needed, and reconciles the maps. Runs in a
    /// task of its own, so that it completes even if the caller is cancelled.
    ///
    /// # Errors
    /// When a netlink request, an attachment or a write to a map fails. The host sync task tries again later.
    pub async fn refresh_host(self: &Arc<Self>) -> Result<()> {
        let agent = Arc::clone(self);
        tokio::spawn(async move { agent.refresh_host_locked().await }).await?
    }

    async fn refresh_host_locked(&self) -> Result<()> {
        let mut host = self.host.lock().await;
        let (dirty, plan) = {
            let mut controller = self.controller.lock().await;
            let dirty = std::mem::take(&mut controller.observed.host_dirty);
            if dirty.is_empty() && controller.in_sync() {
                return Ok(());
            }
            let next_hops = &controller.observed.next_hops;
            let plan = ScanPlan::from_dirty_set(&dirty, controller.state(), next_hops);
            (dirty, plan)
        };
        let result = self.refresh(&mut host, &plan).await;
        if result.is_err() {
            self.controller
                .lock()
                .await
                .observed
                .host_dirty
                .merge(dirty);
        }
        result
    }

    async fn refresh(&self, host: &mut Host, plan: &ScanPlan) -> Result<()> {
        let scan = host.scan(&self.netlink, self.kernel, plan).await?;
        let (frames, reconciled) = {
            let mut controller = self.controller.lock().await;
            tokio::task::block_in_place(|| sync_data_path(&mut controller, host, plan, &scan))?
        };
        self.send_frames(&frames);
        reconciled?;
        // The attach modes are known only now. They are read without the controller's lock.
        let interfaces = host.diagnose(&self.netlink, plan).await?;
        let mut controller = self.controller.lock().await;
        controller.observed.host.update_interfaces(interfaces);
        Ok(())
    }
}

/// Updates the maps, then attaches the program to new interfaces: where the program runs, its network's entries are
/// already in the maps. Returns the solicitations to be sent for next hops, and the result of the last update of the maps.
fn sync_data_path(
    controller: &mut Controller,
    host: &mut Host,
    plan: &ScanPlan,
    scan: &Scan,
) -> Result<(Vec<OutgoingFrame>, Result<()>)> {
    let now = Instant::now();
    if let Some(addresses) = scan.assigned_addresses() {
        controller.observe_host_addresses(addresses);
    }
    if let Some(addresses) = scan.sender_addresses() {
        controller.observed.next_hops.set_addresses(addresses);
    }
    let carrier_returns = host.carrier_returns(scan);
    let known = controller.observed().interfaces.keys();
    for (name, interface) in host.usable_interfaces(plan, &scan.links, known) {
        let network = plan.links.get(&name).and_then(Option::as_ref);
        let before = controller.observed().interfaces.get(&name).copied();
        let is_back = carrier_returns.contains(&name);
        if let Some(network) = network
            && (is_back || needs_announcements(before, interface))
        {
            controller.observed.announce_network(network);
        }
        if let Some(interface) = interface
            && controller.observed().interfaces.get(&name) != Some(&interface)
        {
            controller
                .observed
                .next_hops
                .recheck_interface(interface.ifindex, now);
        }
        controller.observe_interface(&name, interface);
    }
    if !plan.is_full {
        // The interface may lead to another link now: its carrier or its state changed.
        for link in scan.links.values() {
            if plan.links.contains_key(&link.name) {
                controller
                    .observed
                    .next_hops
                    .recheck_interface(link.ifindex, now);
            }
        }
    }
    controller.observe_routes(&scan.routes, plan.is_full, now);
    controller.reconcile()?;
    let mut failed = Vec::new();
    let attached = host.attach(
        &mut controller.datapath.program,
        plan,
        &scan.links,
        &mut failed,
    );
    for name in failed {
        // No next hop on it can be confirmed, which shows its backends' users the reason.
        if let Some(link) = scan.links.get(&name) {
            let next_hops = &mut controller.observed.next_hops;
            next_hops.recheck_interface(link.ifindex, now);
        }
        controller.observe_interface(&name, None);
    }
    attached?;
    controller.reconcile()?;
    Ok(controller.step_next_hops(now))
}

/// Returns true if neighbours may have lost a network's addresses by a change of its interface, or have wrong MAC
/// addresses for them now: it came back, has another MAC address, or is gone, so that another one takes over.
fn needs_announcements(before: Option<Interface>, now: Option<Interface>) -> bool {
    let sends = |interface: Option<Interface>| {
        let interface = interface.filter(|interface| interface.has_carrier);
        interface.map(|interface| (interface.ifindex, interface.mac))
    };
    sends(before) != sends(now)
}

#[cfg(test)]
mod tests {
    use gateway_common::packet::Mac;

    use super::*;

    #[test]
    fn addresses_are_announced_after_changes_that_neighbours_see() {
        let interface = Interface {
            ifindex: 3,
            mac: Mac::new([2, 0, 0, 0, 0, 3]),
            mtu: 1_500,
            has_carrier: true,
        };
        let other = |change: fn(&mut Interface)| {
            let mut other = interface;
            change(&mut other);
            Some(other)
        };
        let (none, now) = (None, Some(interface));
        assert!(needs_announcements(none, now), "it appears");
        assert!(needs_announcements(now, none), "another one takes over");
        let dark = other(|interface| interface.has_carrier = false);
        assert!(needs_announcements(dark, now), "its carrier returns");
        assert!(needs_announcements(now, dark), "its carrier is lost");
        let card = other(|interface| interface.ifindex = 4);
        assert!(needs_announcements(now, card), "it is a new card");
        let mac = other(|interface| interface.mac = Mac::new([2, 0, 0, 0, 0, 4]));
        assert!(needs_announcements(now, mac), "its MAC address changes");
        let mtu = other(|interface| interface.mtu = 9_000);
        assert!(!needs_announcements(now, mtu) && !needs_announcements(now, now));
        assert!(!needs_announcements(dark, none) && !needs_announcements(none, dark));
    }
}
