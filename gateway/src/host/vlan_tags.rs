//! Visibility of VLAN tags. With VLAN offload, a tag travels beside the packet, so an XDP program in the driver takes a
//! frame of another VLAN for an untagged one. The offloads are disabled before an interface is attached.

use std::collections::BTreeMap;

use log::{debug, warn};

use crate::{
    host::scan_plan::ScanPlan,
    netlink::{DeviceFeatures, Link, VethPeer, interface_name, vlan_offload},
};

/// Visibility of tags on the interfaces of networks.
#[derive(Debug, Default)]
pub(crate) struct VlanTagVisibility {
    by_ifindex: BTreeMap<u32, TagVisibility>,
    /// True if the operator accepts invisible tags, which makes each problem a note.
    accept_unseen: bool,
}

impl VlanTagVisibility {
    /// Returns an empty set. `accept_unseen` states that the operator accepts invisible tags.
    pub(crate) const fn new(accept_unseen: bool) -> Self {
        Self {
            by_ifindex: BTreeMap::new(),
            accept_unseen,
        }
    }

    /// Disables the VLAN offloads of the scanned interfaces of networks.
    pub(crate) async fn disable_offloads(
        &mut self,
        features: &DeviceFeatures,
        plan: &ScanPlan,
        links: &BTreeMap<String, Link>,
    ) {
        if plan.is_full {
            self.by_ifindex.clear();
        }
        for (name, network) in &plan.links {
            let Some(link) = links.get(name) else {
                continue;
            };
            if network.is_some() && link.mac.is_some() {
                let mut tags = disable_interface_offloads(features, link).await;
                if self.accept_unseen {
                    tags.downgrade_to_note();
                }
                self.by_ifindex.insert(link.ifindex, tags);
                continue;
            }
            self.by_ifindex.remove(&link.ifindex);
            // This interface may be the veth peer of an attached one, with the offload enabled again.
            let mut others = self.by_ifindex.values_mut();
            let Some(tags) = others.find(|tags| tags.peer == Some(link.ifindex)) else {
                continue;
            };
            if disable_peer_offloads(features, link.ifindex).await {
                debug!("vlan tags: offload of veth peer disabled interface={name}");
            } else {
                warn!("vlan tags: offload of veth peer not disabled interface={name}");
                tags.problem = Some(peer_offload_problem(name));
                if self.accept_unseen {
                    tags.downgrade_to_note();
                }
            }
        }
    }

    /// Returns true if tags are known to be in the packets of an interface, where the program sees them.
    pub(crate) fn are_tags_visible(&self, ifindex: u32) -> bool {
        let tags = self.get(ifindex);
        tags.is_some_and(|tags| tags.problem.is_none())
    }

    /// Returns the result for an interface, if it was scanned.
    pub(crate) fn get(&self, ifindex: u32) -> Option<&TagVisibility> {
        self.by_ifindex.get(&ifindex)
    }
}

/// Returns the problem of an interface whose veth peer has VLAN offload enabled.
fn peer_offload_problem(peer_name: &str) -> String {
    format!(
        "the far end {peer_name} leaves VLAN tags beside packets, so frames of another VLAN would look untagged: \
         ethtool -K {peer_name} txvlan off tx-vlan-stag-hw-insert off"
    )
}

/// Visibility of tags on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TagVisibility {
    /// Reason why the interface can't be attached, and what to do about it.
    pub(crate) problem: Option<String>,
    /// Remark about offloads that the agent can't disable itself.
    pub(crate) note: Option<String>,
    /// Interface number of the veth peer, if it is in the same network namespace.
    pub(crate) peer: Option<u32>,
}

impl TagVisibility {
    /// Turns the problem into a note.
    fn downgrade_to_note(&mut self) {
        if let Some(problem) = self.problem.take() {
            self.note = Some(problem);
        }
    }
}

/// Disables the VLAN offloads of an interface and of its veth peer. Returns what could not be disabled.
async fn disable_interface_offloads(features: &DeviceFeatures, link: &Link) -> TagVisibility {
    let name = &link.name;
    let mut tags = TagVisibility::default();
    match features
        .disable_offloads(link.ifindex, &vlan_offload::RX_OFFLOADS)
        .await
    {
        Ok(true) => {}
        Ok(false) => {
            tags.problem = Some(format!(
                "{name} takes VLAN tags out of packets, so frames of another VLAN would look untagged: \
                 ethtool -K {name} rxvlan off rx-vlan-stag-hw-parse off; if its driver does not allow that, and \
                 no tagged frame can arrive, set accept_unseen_vlan_tags"
            ));
        }
        Err(error) => {
            tags.problem = Some(format!(
                "failed to find out whether {name} takes VLAN tags out of packets: {error:#}"
            ));
        }
    }
    match link.peer {
        VethPeer::None if link.is_stacked => {
            tags.note = Some(format!(
                "the interfaces below {name} take VLAN tags out of its packets, so the program does not see them: \
                 make sure that no tagged frame reaches it"
            ));
        }
        VethPeer::None => {}
        VethPeer::OtherNamespace => {
            tags.note = Some(format!(
                "the program does not see VLAN tags that the far end of {name} leaves beside packets: where tagged \
                 frames can reach it, run `ethtool -K FAR_END txvlan off tx-vlan-stag-hw-insert off` there"
            ));
        }
        VethPeer::SameNamespace(index) => {
            tags.peer = Some(index);
            if !disable_peer_offloads(features, index).await {
                let peer_name = interface_name(index).unwrap_or_else(|| format!("of {name}"));
                tags.problem = Some(peer_offload_problem(&peer_name));
            }
        }
    }
    tags
}

/// Disables the VLAN offload of packets that a veth peer sends. Returns true if it is disabled.
async fn disable_peer_offloads(features: &DeviceFeatures, ifindex: u32) -> bool {
    matches!(
        features
            .disable_offloads(ifindex, &vlan_offload::TX_OFFLOADS)
            .await,
        Ok(true)
    )
}
