//! Attachment of the XDP program to interfaces.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use log::info;

use crate::{
    bpf::loader::Program,
    host::{Host, scan::usable_interface, scan_plan::ScanPlan},
    netlink::Link,
};

impl Host {
    /// Attaches the program to the interfaces of networks, and detaches it from others. `failed` receives the names of
    /// the interfaces where attaching failed.
    ///
    /// # Errors
    /// When the program can't be detached.
    pub(crate) fn attach(
        &mut self,
        program: &mut Program,
        plan: &ScanPlan,
        links: &BTreeMap<String, Link>,
        failed: &mut Vec<String>,
    ) -> Result<()> {
        if plan.is_full {
            let present: BTreeSet<u32> = links.values().map(|link| link.ifindex).collect();
            self.attached.retain(|ifindex| present.contains(ifindex));
            self.attach_errors.clear();
            self.carrier_ups
                .retain(|ifindex, _| present.contains(ifindex));
            program.detach_except(&present)?;
        }
        for (name, network) in &plan.links {
            let Some(link) = links.get(name) else {
                continue;
            };
            if network.is_none() {
                if self.attached.remove(&link.ifindex) {
                    info!("host: detached interface={name} reason=no_network");
                    program.detach(link.ifindex)?;
                }
                continue;
            }
            // Detached by another program, or never attached by this process.
            let may_attach = self.vlan_tags.are_tags_visible(link.ifindex);
            if !may_attach && link.xdp.is_some() {
                // A program that an earlier agent attached would go on with maps that nobody updates any more.
                // Another owner's program stays attached, so this may happen on each scan: it is not logged each time.
                if self.attached.remove(&link.ifindex) {
                    info!("host: detached interface={name} reason=vlan_tags_unseen");
                }
                program.detach(link.ifindex)?;
            }
            if usable_interface(link).is_none()
                || !may_attach
                || (self.attached.contains(&link.ifindex) && link.xdp.is_some())
            {
                continue;
            }
            match program.attach(link.ifindex) {
                Ok(()) => {
                    self.attach_errors.remove(&link.ifindex);
                    self.attached.insert(link.ifindex);
                }
                Err(error) => {
                    self.attached.remove(&link.ifindex);
                    self.attach_errors
                        .insert(link.ifindex, format!("{error:#}"));
                    failed.push(name.clone());
                }
            }
        }
        Ok(())
    }
}
