//! Host refresh: scans the interfaces that networks name, attaches the program to them, and resolves the next hops of
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

/// State of an attachment's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentState {
    /// Interface as the kernel reports it, if it exists.
    pub link: Option<Link>,
    /// Mode in which the program is attached, if it is.
    pub mode: Option<AttachMode>,
    /// Problems, each with what to do about it.
    pub problems: Vec<String>,
    /// Remarks about conditions that the agent can't check or correct itself.
    pub notes: Vec<String>,
}

/// Observed state of the host, as shown to users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// Interfaces that networks name, by name.
    pub attachments: BTreeMap<String, AttachmentState>,
    /// Reasons why backends can't be reached.
    pub unreachable: HashMap<BackendKey, String>,
}

/// Result of a scan of interfaces.
struct InterfaceScan {
    /// True if the scan covered all interfaces.
    is_full: bool,
    /// `None` for an interface that no network names any more.
    states: BTreeMap<String, Option<AttachmentState>>,
}

impl HostStatus {
    /// Records the results of a scan, and logs new problems and recoveries.
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
                    warn!("host: interface problem interface={name} problem=\"{problem}\"");
                }
            }
            if state.problems.is_empty() && (!old.is_empty() || !known) {
                info!("host: interface ok interface={name}");
            }
            self.attachments.insert(name, state);
        }
        for (key, result) in next_hops {
            let (network, address) = &key;
            match result {
                NextHopResult::Unreachable(reason) => {
                    if !self.unreachable.contains_key(&key) {
                        warn!(
                            "host: backend unreachable backend={address} network={network} reason=\"{reason}\""
                        );
                    }
                    self.unreachable.insert(key, reason);
                }
                NextHopResult::Resolved(_) => {
                    if self.unreachable.remove(&key).is_some() {
                        info!("host: backend reachable backend={address} network={network}");
                    }
                }
                NextHopResult::Unused => {
                    self.unreachable.remove(&key);
                }
            }
        }
    }
}

/// Attachments and next hops that this process manages on the host.
#[derive(Debug, Default)]
pub struct Host {
    /// Interfaces that this process has attached its program to.
    attached: BTreeSet<u32>,
    /// Reasons why attaching failed, by interface number.
    attach_errors: BTreeMap<u32, String>,
    /// Length of the largest packet that the kernel redirects, if it has a limit.
    max_packet_len: Option<u32>,
    /// True if the program runs in native mode on any interface.
    any_native: bool,
    /// Next hops of backends.
    next_hops: NextHopResolver,
    /// Visibility of VLAN tags to the program.
    vlan_tags: VlanTagVisibility,
}

impl Host {
    /// Returns a host that was not scanned yet.
    pub(super) fn new(accept_unseen_vlan_tags: bool) -> Self {
        Self {
            vlan_tags: VlanTagVisibility::new(accept_unseen_vlan_tags),
            ..Self::default()
        }
    }
}

impl Agent {
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

        // The attach modes are known only now. They are read without the controller's lock.
        let links = list_links(&self.netlink, plan, plan.links.keys()).await?;
        let states = host.scan_interfaces(&self.netlink, plan, &links).await;
        self.controller.lock().await.host.update(states, results);
        Ok(())
    }
}

/// Returns the interfaces of these names that exist; with a full plan, all that networks name.
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
    /// Updates the maps, then attaches the program to new interfaces: where the program runs, its network's entries are
    /// already in the maps.
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
                // Neighbours' caches may have lost the network's addresses while its interface was away.
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

    /// Attaches the program to the interfaces of networks, and detaches it from others.
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
                    info!("host: detached interface={name} reason=no_network");
                    controller.program.detach(link.ifindex)?;
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

    /// Returns the state and the problems of each scanned interface.
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
            problems.push(format!(
                "{name} is not an Ethernet interface: name an Ethernet interface in its network"
            ));
        }
        if !link.up {
            problems.push(format!("{name} is down: ip link set dev {name} up"));
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

/// Returns the interface, if it is an Ethernet interface and up.
fn usable_interface(link: &Link) -> Option<Interface> {
    Some(Interface {
        ifindex: link.ifindex,
        mac: link.mac.filter(|_| link.up)?,
        mtu: link.mtu,
    })
}

/// Returns the interface with its MTU limited to what the kernel redirects.
fn limit_mtu(interface: Interface, max_packet_len: Option<u32>) -> Interface {
    Interface {
        mtu: max_packet_len.map_or(interface.mtu, |largest| interface.mtu.min(largest)),
        ..interface
    }
}
