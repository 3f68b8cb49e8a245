//! The host as the agent sees it: interfaces that networks name, the program on them, and the way to
//! backends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anyhow::Result;
use log::{info, warn};

use crate::{
    agent::{
        Agent,
        addresses::host_addresses,
        core::Core,
        sight::Wanted,
        tags::AllTags,
        ways::{Found, Ways},
    },
    dataplane::{
        observed::{BackendKey, Interface},
        program::AttachMode,
    },
    netlink::{Link, Netlink, XdpAttachment},
};

/// What is known of an attachment's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentState {
    /// As the kernel shows it, if it is there.
    pub link: Option<Link>,
    /// How the program is attached to it.
    pub mode: Option<AttachMode>,
    /// What is wrong, and what to do about it.
    pub problems: Vec<String>,
    /// What the agent can't see to itself.
    pub notes: Vec<String>,
}

/// What is known of the host, by interface name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// The interfaces that networks name.
    pub attachments: BTreeMap<String, AttachmentState>,
    /// Why a backend can't be reached.
    pub unreachable: HashMap<BackendKey, String>,
}

/// What was found out about interfaces.
struct Described {
    /// Whether there are no others.
    everything: bool,
    /// None for one that is no network's any more.
    states: BTreeMap<String, Option<AttachmentState>>,
}

impl HostStatus {
    /// Takes in what was found out, and logs what has become wrong, and what is right again.
    fn take_in(&mut self, described: Described, found: BTreeMap<BackendKey, Found>) {
        if described.everything {
            self.attachments
                .retain(|name, _| described.states.contains_key(name));
        }
        for (name, state) in described.states {
            let Some(state) = state else {
                self.attachments.remove(&name);
                continue;
            };
            let old = self.attachments.get(&name);
            let known = old.is_some();
            let old = old.map_or(&[][..], |state| &state.problems);
            for problem in &state.problems {
                if !old.contains(problem) {
                    warn!("{problem}");
                }
            }
            if state.problems.is_empty() && (!old.is_empty() || !known) {
                info!("interface {name} is in order");
            }
            self.attachments.insert(name, state);
        }
        for (key, found) in found {
            let (network, address) = &key;
            match found {
                Found::Missing(reason) => {
                    if !self.unreachable.contains_key(&key) {
                        warn!("backend {address} in {network} can't be reached: {reason}");
                    }
                    self.unreachable.insert(key, reason);
                }
                Found::Hop(_) => {
                    if self.unreachable.remove(&key).is_some() {
                        info!("backend {address} in {network} can be reached");
                    }
                }
                Found::Gone => {
                    self.unreachable.remove(&key);
                }
            }
        }
    }
}

/// What the agent has done to the host.
#[derive(Debug, Default)]
pub struct Host {
    /// Interfaces that this process has attached its program to.
    attached: BTreeSet<u32>,
    /// Why attaching failed.
    failed: BTreeMap<u32, String>,
    /// The largest packet that the kernel forwards, where it sets a limit.
    largest: Option<u32>,
    /// Whether any driver runs the program itself.
    any_native: bool,
    /// The ways to backends.
    ways: Ways,
    /// VLAN tags beside packets.
    tags: AllTags,
}

impl Host {
    /// Returns a host that was not looked at yet.
    pub(super) fn new(accept_unseen_vlan_tags: bool) -> Self {
        Self {
            tags: AllTags::new(accept_unseen_vlan_tags),
            ..Self::default()
        }
    }
}

impl Agent {
    /// Looks at what is to be looked at of the host, brings the program onto the interfaces that need
    /// it, and the maps into step. It is gone through with, whether or not the caller waits for it.
    ///
    /// # Errors
    /// When the kernel does not tell, or does not take what has to be written. It is tried again then.
    pub async fn look(self: &Arc<Self>) -> Result<()> {
        let agent = Arc::clone(self);
        tokio::spawn(async move { agent.look_now().await }).await?
    }

    async fn look_now(&self) -> Result<()> {
        let mut host = self.host.lock().await;
        let (sight, wanted) = {
            let mut core = self.core.lock().await;
            let sight = std::mem::take(&mut core.sight);
            if sight.is_empty() && core.in_step() {
                return Ok(());
            }
            let wanted = Wanted::of(&sight, &core.state, &host.ways);
            (sight, wanted)
        };
        let looked = self.look_at(&mut host, &wanted).await;
        if looked.is_err() {
            self.core.lock().await.sight.add(sight);
        }
        looked
    }

    async fn look_at(&self, host: &mut Host, wanted: &Wanted) -> Result<()> {
        let behind = wanted.backends.values().flatten();
        let names = wanted.links.keys().chain(&wanted.groups).chain(behind);
        let seen = links(&self.netlink, wanted, names).await?;
        let addresses = host_addresses(&self.netlink, wanted).await?;
        let features = self.netlink.features();
        host.tags.bring_in(features, wanted, &seen).await;
        for link in seen.values() {
            if wanted.groups.contains(&link.name) && !link.all_multicast {
                self.netlink.receive_all_multicast(link.ifindex).await?;
            }
        }
        let Wanted {
            everything,
            backends,
            ..
        } = wanted;
        let ways = &mut host.ways;
        let found = ways
            .look(&self.netlink, backends, *everything, &seen)
            .await?;

        host.largest = self.kernel.largest_packet();
        {
            let mut core = self.core.lock().await;
            if let Some(addresses) = addresses {
                core.see_host(addresses);
            }
            tokio::task::block_in_place(|| host.bring_into_step(&mut core, wanted, &seen, &found))?;
        }

        // How it is attached is known only now. Nobody has to wait until all of it is described.
        let seen = links(&self.netlink, wanted, wanted.links.keys()).await?;
        let states = host.describe(&self.netlink, wanted, &seen).await;
        self.core.lock().await.host.take_in(states, found);
        Ok(())
    }
}

/// The interfaces of these names, as far as they are there; all that are wanted, if that is everything.
async fn links<'a>(
    netlink: &Netlink,
    wanted: &Wanted,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    if wanted.everything {
        let all = netlink.links().await?.into_iter();
        let all = all.filter(|link| wanted.links.contains_key(&link.name));
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

impl Host {
    /// First the maps, then the program onto new interfaces: where the program runs, it finds its
    /// network's rules in force.
    fn bring_into_step(
        &mut self,
        core: &mut Core,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
        found: &BTreeMap<BackendKey, Found>,
    ) -> Result<()> {
        let mut names: BTreeSet<String> = wanted.links.keys().cloned().collect();
        if wanted.everything {
            names.extend(core.observed().interfaces.keys().cloned());
        }
        for name in &names {
            let network = wanted.links.get(name).and_then(Option::as_ref);
            let link = network.and_then(|_| links.get(name));
            let seen = link
                .and_then(usable)
                .filter(|interface| self.tags.are_seen(interface.ifindex))
                .map(|interface| limited(interface, self.largest));
            if let Some(network) = network
                && seen.is_some()
                && !core.observed().interfaces.contains_key(name)
            {
                // Whoever was asking for its addresses meanwhile has forgotten them.
                core.detection.announce_again(network);
            }
            core.see_interface(name, seen);
        }
        for (key, found) in found {
            let hop = match found {
                Found::Hop(hop) => Some(hop.clone()),
                Found::Missing(_) | Found::Gone => None,
            };
            core.see_next_hop(key, hop);
        }
        core.reconcile()?;
        self.attach(core, wanted, links)
    }

    /// Puts the program onto the interfaces of networks, and takes it off others.
    fn attach(
        &mut self,
        core: &mut Core,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
    ) -> Result<()> {
        if wanted.everything {
            let present: BTreeSet<u32> = links.values().map(|link| link.ifindex).collect();
            self.attached.retain(|ifindex| present.contains(ifindex));
            self.failed.clear();
            core.program.detach_others(&present)?;
        }
        for (name, network) in &wanted.links {
            let Some(link) = links.get(name) else {
                continue;
            };
            if network.is_none() {
                if self.attached.remove(&link.ifindex) {
                    info!("detaching from {name}");
                    core.program.detach(link.ifindex)?;
                }
                continue;
            }
            // Taken off by somebody else, or never put on by this process.
            let may_attach = self.tags.are_seen(link.ifindex);
            if !may_attach && link.xdp.is_some() {
                // The program of an earlier agent would go on by itself, with maps that nobody updates any more.
                // Somebody else's program stays, so this may come again: it is not worth a line each time.
                if self.attached.remove(&link.ifindex) {
                    info!("host: detached interface={name} reason=vlan_tags_unseen");
                }
                core.program.detach(link.ifindex)?;
            }
            if usable(link).is_none()
                || !may_attach
                || (self.attached.contains(&link.ifindex) && link.xdp.is_some())
            {
                continue;
            }
            match core.program.attach(link.ifindex) {
                Ok(()) => {
                    self.failed.remove(&link.ifindex);
                    self.attached.insert(link.ifindex);
                }
                Err(error) => {
                    self.attached.remove(&link.ifindex);
                    self.failed.insert(link.ifindex, format!("{error:#}"));
                    core.see_interface(name, None);
                }
            }
        }
        core.reconcile()
    }

    /// How things stand with each interface, and what is wrong with it; none for one that is no
    /// network's any more.
    async fn describe(
        &mut self,
        netlink: &Netlink,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
    ) -> Described {
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
        self.any_native = any_native || (self.any_native && !wanted.everything);
        let mut states = BTreeMap::new();
        for (name, network) in &wanted.links {
            if network.is_none() {
                states.insert(name.clone(), None);
                continue;
            }
            let mut state = AttachmentState::default();
            match links.get(name) {
                None => state.problems.push(format!(
                    "there is no interface {name} on this host: its network is unreachable until \
                     it comes"
                )),
                Some(link) => {
                    state.mode = modes.get(name).copied().flatten();
                    state.problems = self.problems(netlink, link, state.mode).await;
                    let tags = self.tags.of(link.ifindex);
                    state.notes.extend(tags.and_then(|tags| tags.note.clone()));
                    state.link = Some(link.clone());
                }
            }
            states.insert(name.clone(), Some(state));
        }
        Described {
            everything: wanted.everything,
            states,
        }
    }

    async fn problems(
        &self,
        netlink: &Netlink,
        link: &Link,
        mode: Option<AttachMode>,
    ) -> Vec<String> {
        let name = &link.name;
        let mut problems = Vec::new();
        if link.mac.is_none() {
            problems.push(format!("{name} is not an Ethernet interface"));
        }
        if !link.up {
            problems.push(format!("{name} is down: ip link set dev {name} up"));
        }
        let tags = self.tags.of(link.ifindex);
        problems.extend(tags.and_then(|tags| tags.problem.clone()));
        if let Some(failure) = self.failed.get(&link.ifindex) {
            problems.push(format!(
                "the program can't be attached to {name}: {failure}"
            ));
        }
        if mode == Some(AttachMode::Generic) {
            problems.push(format!(
                "{name} has no native XDP, so the slow generic one is used: see to a driver with \
                 native XDP"
            ));
        }
        if let Some(largest) = self.largest.filter(|largest| link.mtu > *largest) {
            problems.push(format!(
                "{name} has an MTU of {}, and this kernel forwards packets of {largest} bytes at the \
                 most: senders of larger ones are told so (Linux 6.3 forwards them)",
                link.mtu
            ));
        }
        if self.any_native && netlink.features().takes_redirects(link.ifindex).await == Some(false)
        {
            problems.push(format!(
                "what is forwarded into {name} is lost: its driver takes no redirected frames. If \
                 it is a veth, run `ethtool -K FAR_END gro on` where its far end is"
            ));
        }
        problems
    }
}

/// The interface, if it can carry packets.
fn usable(link: &Link) -> Option<Interface> {
    Some(Interface {
        ifindex: link.ifindex,
        mac: link.mac.filter(|_| link.up)?,
        mtu: link.mtu,
    })
}

/// The interface, with packets no longer than the kernel forwards.
fn limited(interface: Interface, largest: Option<u32>) -> Interface {
    Interface {
        mtu: largest.map_or(interface.mtu, |largest| interface.mtu.min(largest)),
        ..interface
    }
}
