//! VLAN tags that travel beside packets: a program in the driver does not see them, and takes frames of another
//! VLAN for untagged ones. They are brought into the packets before an interface is attached.

use std::collections::BTreeMap;

use log::{debug, warn};

use crate::{
    agent::sight::Wanted,
    netlink::{FarEnd, Features, Link, interface_name, vlan},
};

/// Results of the search for networks' interfaces, by the interface's number.
#[derive(Debug, Default)]
pub(super) struct AllTags {
    found: BTreeMap<u32, Tags>,
    /// The operator accepts that tags are not seen: a problem is a note.
    accept: bool,
}

impl AllTags {
    /// Returns no results yet. With `accept` the operator accepts that tags are not seen.
    pub(super) const fn new(accept: bool) -> Self {
        Self {
            found: BTreeMap::new(),
            accept,
        }
    }

    /// Brings tags into the packets of the interfaces of networks that are looked at.
    pub(super) async fn bring_in(
        &mut self,
        features: &Features,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
    ) {
        if wanted.everything {
            self.found.clear();
        }
        for (name, network) in &wanted.links {
            let Some(link) = links.get(name) else {
                continue;
            };
            if network.is_some() && link.mac.is_some() {
                let mut tags = bring_in(features, link).await;
                if self.accept {
                    tags.accept();
                }
                self.found.insert(link.ifindex, tags);
                continue;
            }
            self.found.remove(&link.ifindex);
            // Somebody may have switched on what is off for an interface at whose far end this one is.
            let mut others = self.found.values_mut();
            let Some(tags) = others.find(|tags| tags.far_end == Some(link.ifindex)) else {
                continue;
            };
            if far_end(features, link.ifindex).await {
                debug!("tags: far end {name} keeps them in packets");
            } else {
                warn!("tags: far end {name} leaves them beside packets");
                tags.problem = Some(beside(name));
                if self.accept {
                    tags.accept();
                }
            }
        }
    }

    /// Returns whether tags are known to be in the packets of an interface.
    pub(super) fn are_seen(&self, ifindex: u32) -> bool {
        let tags = self.of(ifindex);
        tags.is_some_and(|tags| tags.problem.is_none())
    }

    /// Returns the result for an interface, if it was looked at.
    pub(super) fn of(&self, ifindex: u32) -> Option<&Tags> {
        self.found.get(&ifindex)
    }
}

/// Returns the problem of an interface whose far end keeps tags beside packets.
fn beside(far_end: &str) -> String {
    format!(
        "the far end {far_end} leaves VLAN tags beside packets, so that frames of another VLAN would look \
         untagged: ethtool -K {far_end} txvlan off tx-vlan-stag-hw-insert off"
    )
}

/// Result of the search for tags beside an interface's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tags {
    /// Why the interface can't be attached, and what to do about it.
    pub(super) problem: Option<String>,
    /// Remark about tags that the agent can't bring into packets itself.
    pub(super) note: Option<String>,
    /// Number of a veth's far end in the same network namespace.
    pub(super) far_end: Option<u32>,
}

impl Tags {
    /// Makes the problem a note.
    fn accept(&mut self) {
        if let Some(problem) = self.problem.take() {
            self.note = Some(problem);
        }
    }
}

/// Switches off what keeps an interface's tags beside its packets, at the interface itself and at a veth's far
/// end, and returns what could not be switched off.
async fn bring_in(features: &Features, link: &Link) -> Tags {
    let name = &link.name;
    let mut tags = Tags::default();
    match features.switch_off(link.ifindex, &vlan::RECEIVE).await {
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
    match link.far_end {
        FarEnd::None if link.is_stacked => {
            tags.note = Some(format!(
                "VLAN tags are taken out of the packets of {name} by the interfaces below it, and are not seen: \
                 see to it that no tagged frame reaches it"
            ));
        }
        FarEnd::None => {}
        FarEnd::Elsewhere => {
            tags.note = Some(format!(
                "VLAN tags that the far end of {name} leaves beside packets are not seen: where tagged frames \
                 can reach it, run `ethtool -K FAR_END txvlan off tx-vlan-stag-hw-insert off` there"
            ));
        }
        FarEnd::Here(index) => {
            tags.far_end = Some(index);
            if !far_end(features, index).await {
                let far = interface_name(index).unwrap_or_else(|| format!("of {name}"));
                tags.problem = Some(beside(&far));
            }
        }
    }
    tags
}

/// Switches off what keeps tags beside the packets that a veth's far end sends, and returns whether it is off.
async fn far_end(features: &Features, ifindex: u32) -> bool {
    matches!(features.switch_off(ifindex, &vlan::SEND).await, Ok(true))
}
