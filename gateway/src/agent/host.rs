//! The host as the agent sees it: interfaces that networks name, the program on them, and the way to
//! backends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anyhow::Result;
use log::{info, warn};

use crate::{
    agent::{Agent, controller::Controller},
    bpf::loader::AttachMode,
    compile::observed::{BackendKey, Interface},
    host::{
        addresses::scan_host_addresses,
        dirty_set::ScanPlan,
        next_hops::{NextHopResolver, NextHopResult},
        vlan_tags::VlanTagVisibility,
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
struct InterfaceScan {
    /// Whether there are no others.
    is_full: bool,
    /// None for one that is no network's any more.
    states: BTreeMap<String, Option<AttachmentState>>,
}

impl HostStatus {
    /// Takes in what was found out, and logs what has become wrong, and what is right again.
    fn update(&mut self, scan: InterfaceScan, next_hops: BTreeMap<BackendKey, NextHopResult>) {
        if scan.is_full {
            self.attachments
                .retain(|name, _| scan.states.contains_key(name));
        }
        for (name, state) in scan.states {
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
        for (key, result) in next_hops {
            let (network, address) = &key;
            match result {
                NextHopResult::Unreachable(reason) => {
                    if !self.unreachable.contains_key(&key) {
                        warn!("backend {address} in {network} can't be reached: {reason}");
                    }
                    self.unreachable.insert(key, reason);
                }
                NextHopResult::Resolved(_) => {
                    if self.unreachable.remove(&key).is_some() {
                        info!("backend {address} in {network} can be reached");
                    }
                }
                NextHopResult::Unused => {
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
    attach_errors: BTreeMap<u32, String>,
    /// The largest packet that the kernel forwards, where it sets a limit.
    max_packet_len: Option<u32>,
    /// Whether any driver runs the program itself.
    any_native: bool,
    /// The ways to backends.
    next_hops: NextHopResolver,
    /// VLAN tags beside packets.
    vlan_tags: VlanTagVisibility,
}

impl Host {
    /// Returns a host that was not looked at yet.
    pub(super) fn new(accept_unseen_vlan_tags: bool) -> Self {
        Self {
            vlan_tags: VlanTagVisibility::new(accept_unseen_vlan_tags),
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
    pub async fn refresh_host(self: &Arc<Self>) -> Result<()> {
        let agent = Arc::clone(self);
        tokio::spawn(async move { agent.refresh_host_locked().await }).await?
    }

    async fn refresh_host_locked(&self) -> Result<()> {
        let mut host = self.host.lock().await;
        let (dirty, plan) = {
            let mut controller = self.controller.lock().await;
            let dirty = std::mem::take(&mut controller.host_dirty);
            if dirty.is_empty() && controller.in_sync() {
                return Ok(());
            }
            let plan = ScanPlan::from_dirty_set(&dirty, &controller.state, &host.next_hops);
            (dirty, plan)
        };
        let result = self.scan(&mut host, &plan).await;
        if result.is_err() {
            self.controller.lock().await.host_dirty.merge(dirty);
        }
        result
    }

    async fn scan(&self, host: &mut Host, plan: &ScanPlan) -> Result<()> {
        let backend_interfaces = plan.backends.values().flatten();
        let names = plan
            .links
            .keys()
            .chain(&plan.multicast_interfaces)
            .chain(backend_interfaces);
        let links = list_links(&self.netlink, plan, names).await?;
        let addresses = scan_host_addresses(&self.netlink, plan).await?;
        let features = self.netlink.features();
        host.vlan_tags
            .disable_offloads(features, plan, &links)
            .await;
        for link in links.values() {
            if plan.multicast_interfaces.contains(&link.name) && !link.all_multicast {
                self.netlink.receive_all_multicast(link.ifindex).await?;
            }
        }
        let ScanPlan {
            is_full, backends, ..
        } = plan;
        let next_hops = &mut host.next_hops;
        let results = next_hops
            .resolve(&self.netlink, backends, *is_full, &links)
            .await?;

        host.max_packet_len = self.kernel.max_packet_len();
        {
            let mut controller = self.controller.lock().await;
            if let Some(addresses) = addresses {
                controller.observe_host_addresses(addresses);
            }
            tokio::task::block_in_place(|| {
                host.sync_data_path(&mut controller, plan, &links, &results)
            })?;
        }

        // How it is attached is known only now. Nobody has to wait until all of it is described.
        let links = list_links(&self.netlink, plan, plan.links.keys()).await?;
        let states = host.scan_interfaces(&self.netlink, plan, &links).await;
        self.controller.lock().await.host.update(states, results);
        Ok(())
    }
}

/// The interfaces of these names, as far as they are there; all that are wanted, if that is everything.
async fn list_links<'a>(
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

impl Host {
    /// First the maps, then the program onto new interfaces: where the program runs, it finds its
    /// network's rules in force.
    fn sync_data_path(
        &mut self,
        controller: &mut Controller,
        plan: &ScanPlan,
        links: &BTreeMap<String, Link>,
        results: &BTreeMap<BackendKey, NextHopResult>,
    ) -> Result<()> {
        let mut names: BTreeSet<String> = plan.links.keys().cloned().collect();
        if plan.is_full {
            names.extend(controller.observed().interfaces.keys().cloned());
        }
        for name in &names {
            let network = plan.links.get(name).and_then(Option::as_ref);
            let link = network.and_then(|_| links.get(name));
            let interface = link
                .and_then(usable_interface)
                .filter(|interface| self.vlan_tags.are_tags_visible(interface.ifindex))
                .map(|interface| limit_mtu(interface, self.max_packet_len));
            if let Some(network) = network
                && interface.is_some()
                && !controller.observed().interfaces.contains_key(name)
            {
                // Whoever was asking for its addresses meanwhile has forgotten them.
                controller.conflict_detector.reannounce(network);
            }
            controller.observe_interface(name, interface);
        }
        for (key, result) in results {
            let hop = match result {
                NextHopResult::Resolved(hop) => Some(hop.clone()),
                NextHopResult::Unreachable(_) | NextHopResult::Unused => None,
            };
            controller.observe_next_hop(key, hop);
        }
        controller.reconcile()?;
        self.attach(controller, plan, links)
    }

    /// Puts the program onto the interfaces of networks, and takes it off others.
    fn attach(
        &mut self,
        controller: &mut Controller,
        plan: &ScanPlan,
        links: &BTreeMap<String, Link>,
    ) -> Result<()> {
        if plan.is_full {
            let present: BTreeSet<u32> = links.values().map(|link| link.ifindex).collect();
            self.attached.retain(|ifindex| present.contains(ifindex));
            self.attach_errors.clear();
            controller.program.detach_except(&present)?;
        }
        for (name, network) in &plan.links {
            let Some(link) = links.get(name) else {
                continue;
            };
            if network.is_none() {
                if self.attached.remove(&link.ifindex) {
                    info!("detaching from {name}");
                    controller.program.detach(link.ifindex)?;
                }
                continue;
            }
            // Taken off by somebody else, or never put on by this process.
            let may_attach = self.vlan_tags.are_tags_visible(link.ifindex);
            if !may_attach && link.xdp.is_some() {
                // The program of an earlier agent would go on by itself, with maps that nobody updates any more.
                // Somebody else's program stays, so this may come again: it is not worth a line each time.
                if self.attached.remove(&link.ifindex) {
                    info!("host: detached interface={name} reason=vlan_tags_unseen");
                }
                controller.program.detach(link.ifindex)?;
            }
            if usable_interface(link).is_none()
                || !may_attach
                || (self.attached.contains(&link.ifindex) && link.xdp.is_some())
            {
                continue;
            }
            match controller.program.attach(link.ifindex) {
                Ok(()) => {
                    self.attach_errors.remove(&link.ifindex);
                    self.attached.insert(link.ifindex);
                }
                Err(error) => {
                    self.attached.remove(&link.ifindex);
                    self.attach_errors
                        .insert(link.ifindex, format!("{error:#}"));
                    controller.observe_interface(name, None);
                }
            }
        }
        controller.reconcile()
    }

    /// How things stand with each interface, and what is wrong with it; none for one that is no
    /// network's any more.
    async fn scan_interfaces(
        &mut self,
        netlink: &Netlink,
        plan: &ScanPlan,
        links: &BTreeMap<String, Link>,
    ) -> InterfaceScan {
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
                    "there is no interface {name} on this host: its network is unreachable until \
                     it comes"
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
        InterfaceScan {
            is_full: plan.is_full,
            states,
        }
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
            problems.push(format!("{name} is not an Ethernet interface"));
        }
        if !link.up {
            problems.push(format!("{name} is down: ip link set dev {name} up"));
        }
        let tags = self.vlan_tags.get(link.ifindex);
        problems.extend(tags.and_then(|tags| tags.problem.clone()));
        if let Some(failure) = self.attach_errors.get(&link.ifindex) {
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
        if let Some(max_packet_len) = self.max_packet_len.filter(|largest| link.mtu > *largest) {
            problems.push(format!(
                "{name} has an MTU of {}, and this kernel forwards packets of {max_packet_len} bytes at the \
                 most: senders of larger ones are told so (Linux 6.3 forwards them)",
                link.mtu
            ));
        }
        if self.any_native
            && netlink.features().accepts_redirects(link.ifindex).await == Some(false)
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
fn usable_interface(link: &Link) -> Option<Interface> {
    Some(Interface {
        ifindex: link.ifindex,
        mac: link.mac.filter(|_| link.up)?,
        mtu: link.mtu,
    })
}

/// The interface, with packets no longer than the kernel forwards.
fn limit_mtu(interface: Interface, max_packet_len: Option<u32>) -> Interface {
    Interface {
        mtu: max_packet_len.map_or(interface.mtu, |largest| interface.mtu.min(largest)),
        ..interface
    }
}
