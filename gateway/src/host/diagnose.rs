//! Diagnosis of the scanned interfaces: state, problems and notes.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    bpf::loader::AttachMode,
    host::{
        Host,
        scan::list_links,
        scan_plan::ScanPlan,
        status::{AttachmentState, InterfaceScan},
    },
    netlink::{Link, Netlink, XdpAttachment},
};

impl Host {
    /// Returns the state and the problems of each scanned interface.
    ///
    /// # Errors
    /// When a netlink request fails.
    pub(crate) async fn diagnose(
        &mut self,
        netlink: &Netlink,
        plan: &ScanPlan,
    ) -> Result<InterfaceScan> {
        let links = &list_links(netlink, plan, plan.links.keys()).await?;
        let mut modes = BTreeMap::new();
        for (name, link) in links {
            let mode = match link.xdp {
                _ if !self.attached.contains(&link.ifindex) => None,
                Some(XdpAttachment::Native) => Some(AttachMode::Native),
                Some(XdpAttachment::Generic) => Some(AttachMode::Generic),
                None => None,
            };
            modes.insert(name, mode);
        }
        let any_native = modes.values().any(|mode| *mode == Some(AttachMode::Native));
        self.any_native = any_native || (self.any_native && !plan.is_full);
        let mut states = BTreeMap::new();
        for (name, network) in &plan.links {
            if network.is_none() {
                states.insert(name.clone(), None);
                continue;
            }
            let mut state = AttachmentState::default();
            match links.get(name) {
                None => state.problems.push(format!(
                    "there is no interface {name} on this host: create it, or name another interface in its \
                     network, which is unreachable until then"
                )),
                Some(link) => {
                    state.mode = modes.get(name).copied().flatten();
                    state.problems = self.find_problems(netlink, link, state.mode).await;
                    let tags = self.vlan_tags.get(link.ifindex);
                    state.notes.extend(tags.and_then(|tags| tags.note.clone()));
                    state.link = Some(link.clone());
                }
            }
            states.insert(name.clone(), Some(state));
        }
        Ok(InterfaceScan {
            is_full: plan.is_full,
            states,
        })
    }

    async fn find_problems(
        &self,
        netlink: &Netlink,
        link: &Link,
        mode: Option<AttachMode>,
    ) -> Vec<String> {
        let name = &link.name;
        let mut problems = Vec::new();
        if link.mac.is_none() {
            problems.push(format!(
                "{name} is not an Ethernet interface: name an Ethernet interface in its network"
            ));
        }
        if !link.admin_up {
            problems.push(format!("{name} is down: ip link set dev {name} up"));
        } else if !link.up {
            problems.push(format!(
                "{name} has no carrier: check its cable and the switch's port; if it is a veth, set its far end up"
            ));
        }
        let tags = self.vlan_tags.get(link.ifindex);
        problems.extend(tags.and_then(|tags| tags.problem.clone()));
        if let Some(failure) = self.attach_errors.get(&link.ifindex) {
            problems.push(format!("failed to attach the program to {name}: {failure}"));
        }
        if mode == Some(AttachMode::Generic) {
            problems.push(format!(
                "{name} has no native XDP, so the slow generic mode is used: use a driver with native \
                 XDP"
            ));
        }
        if let Some(max_packet_len) = self.max_packet_len.filter(|largest| link.mtu > *largest) {
            problems.push(format!(
                "{name} has an MTU of {}, but this kernel redirects packets of at most {max_packet_len} \
                 bytes, and larger ones are answered with packet too big: lower the MTU, or use Linux 6.3 \
                 or later",
                link.mtu
            ));
        }
        if self.any_native
            && netlink.features().accepts_redirects(link.ifindex).await == Some(false)
        {
            problems.push(format!(
                "packets redirected into {name} are lost, because its driver accepts no redirected \
                 frames: if it is a veth, run `ethtool -K FAR_END gro on` where its far end is"
            ));
        }
        problems
    }
}
