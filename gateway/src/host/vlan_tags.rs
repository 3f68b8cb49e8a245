//! VLAN tags that travel beside packets: a program in the driver does not see them, and takes frames of another
//! VLAN for untagged ones. They are brought into the packets before an interface is attached.

use std::collections::BTreeMap;

use log::{debug, warn};

use crate::{
    host::dirty_set::ScanPlan,
    netlink::{DeviceFeatures, Link, VethPeer, interface_name, vlan_offload},
};

/// Results of the search for networks' interfaces, by the interface's number.
#[derive(Debug, Default)]
pub(crate) struct VlanTagVisibility {
    by_ifindex: BTreeMap<u32, TagVisibility>,
    /// The operator accepts that tags are not seen: a problem is a note.
    accept_unseen: bool,
}

impl VlanTagVisibility {
    /// Returns no results yet. With `accept` the operator accepts that tags are not seen.
    pub(crate) const fn new(accept_unseen: bool) -> Self {
        Self {
            by_ifindex: BTreeMap::new(),
            accept_unseen,
        }
    }

    /// Brings tags into the packets of the interfaces of networks that are looked at.
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
            // Somebody may have switched on what is off for an interface at whose far end this one is.
            let mut others = self.by_ifindex.values_mut();
            let Some(tags) = others.find(|tags| tags.peer == Some(link.ifindex)) else {
                continue;
            };
            if disable_peer_offloads(features, link.ifindex).await {
                debug!("tags: far end {name} keeps them in packets");
            } else {
                warn!("tags: far end {name} leaves them beside packets");
                tags.problem = Some(peer_offload_problem(name));
                if self.accept_unseen {
                    tags.downgrade_to_note();
                }
            }
        }
    }

    /// Returns whether tags are known to be in the packets of an interface.
    pub(crate) fn are_tags_visible(&self, ifindex: u32) -> bool {
        let tags = self.get(ifindex);
        tags.is_some_and(|tags| tags.problem.is_none())
    }

    /// Returns the result for an interface, if it was looked at.
    pub(crate) fn get(&self, ifindex: u32) -> Option<&TagVisibility> {
        self.by_ifindex.get(&ifindex)
    }
}

/// Returns the problem of an interface whose far end keeps tags beside packets.
fn peer_offload_problem(peer_name: &str) -> String {
    format!(
        "the far end {peer_name} leaves VLAN tags beside packets, so that frames of another VLAN would look \
         untagged: ethtool -K {peer_name} txvlan off tx-vlan-stag-hw-insert off"
    )
}

/// Result of the search for tags beside an interface's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TagVisibility {
    /// Why the interface can't be attached, and what to do about it.
    pub(crate) problem: Option<String>,
    /// Remark about tags that the agent can't bring into packets itself.
    pub(crate) note: Option<String>,
    /// Number of a veth's far end in the same network namespace.
    pub(crate) peer: Option<u32>,
}

impl TagVisibility {
    /// Makes the problem a note.
    fn downgrade_to_note(&mut self) {
        if let Some(problem) = self.problem.take() {
            self.note = Some(problem);
        }
    }
}

/// Switches off what keeps an interface's tags beside its packets, at the interface itself and at a veth's far
/// end, and returns what could not be switched off.
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
                "{name} takes VLAN tags out of packets, so that frames of another VLAN would look untagged: \
                 ethtool -K {name} rxvlan off rx-vlan-stag-hw-parse off; if its driver does not allow that, and \
                 no tagged frame can arrive, set accept_unseen_vlan_tags"
            ));
        }
        Err(error) => {
            tags.problem = Some(format!(
                "it can't be found out whether {name} takes VLAN tags out of packets: {error:#}"
            ));
        }
    }
    match link.peer {
        VethPeer::None if link.is_stacked => {
            tags.note = Some(format!(
                "VLAN tags are taken out of the packets of {name} by the interfaces below it, and are not seen: \
                 see to it that no tagged frame reaches it"
            ));
        }
        VethPeer::None => {}
        VethPeer::OtherNamespace => {
            tags.note = Some(format!(
                "VLAN tags that the far end of {name} leaves beside packets are not seen: where tagged frames \
                 can reach it, run `ethtool -K FAR_END txvlan off tx-vlan-stag-hw-insert off` there"
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

/// Switches off what keeps tags beside the packets that a veth's far end sends, and returns whether it is off.
async fn disable_peer_offloads(features: &DeviceFeatures, ifindex: u32) -> bool {
    matches!(
        features
            .disable_offloads(ifindex, &vlan_offload::TX_OFFLOADS)
            .await,
        Ok(true)
    )
}
