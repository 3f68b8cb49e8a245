//! The host as the agent sees it: interfaces that networks name, the program on them, and the way to
//! backends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use log::{info, warn};

use crate::{
    agent::{Agent, core::Core},
    dataplane::{
        compile::{Interface, NextHop},
        program::AttachMode,
    },
    model::{Reference, State},
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
}

/// What is known of the host, by interface name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// The interfaces that networks name.
    pub attachments: BTreeMap<String, AttachmentState>,
    /// Why a backend can't be reached.
    pub unreachable: HashMap<(Reference, IpAddr), String>,
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
    /// Neighbours that the kernel was asked to keep.
    managed: BTreeSet<(u32, IpAddr)>,
}

/// What is to be looked at.
struct Wanted {
    /// Interfaces.
    interfaces: BTreeSet<String>,
    /// Those of networks in which the gateway has IPv6 addresses.
    ipv6: BTreeSet<String>,
    /// Backends: network, its interfaces, address.
    backends: Vec<(Reference, Vec<String>, IpAddr)>,
}

impl Wanted {
    fn of(state: &State) -> Self {
        let interfaces = state
            .networks
            .values()
            .flat_map(|record| &record.object.attachments)
            .map(|attachment| attachment.interface.clone())
            .collect();
        let mut ipv6 = BTreeSet::new();
        let mut has_ipv6 = |network: &Reference| {
            let found = state.networks.get(network).into_iter();
            let attachments = found.flat_map(|record| &record.object.attachments);
            ipv6.extend(attachments.map(|attachment| attachment.interface.clone()));
        };
        for (reference, record) in &state.endpoints {
            if record.object.addresses.iter().any(IpAddr::is_ipv6) {
                let network = &record.object.network;
                has_ipv6(&Reference::new(reference.tenant.clone(), network.clone()));
            }
        }
        let mut backends = Vec::new();
        for (reference, record) in &state.services {
            let spec = &record.object.spec;
            let network = Reference::new(reference.tenant.clone(), spec.network.clone());
            let Some(found) = state.networks.get(&network) else {
                continue;
            };
            if spec
                .nat_addresses
                .iter()
                .any(|range| range.ends().0.is_ipv6())
            {
                has_ipv6(&network);
            }
            let names: Vec<String> = found
                .object
                .attachments
                .iter()
                .map(|a| a.interface.clone())
                .collect();
            for backend in spec
                .resources
                .iter()
                .flat_map(|resource| &resource.backends)
            {
                backends.push((network.clone(), names.clone(), backend.address));
            }
        }
        backends.sort();
        backends.dedup();
        Self {
            interfaces,
            ipv6,
            backends,
        }
    }
}

impl Agent {
    /// Looks at the host, brings the program onto the interfaces that need it, and the maps into
    /// step.
    ///
    /// # Errors
    /// When the kernel does not tell, or does not take what has to be written.
    pub async fn refresh(&self) -> Result<()> {
        let mut host = self.host.lock().await;
        let wanted = Wanted::of(&self.core.lock().await.state);
        let links = by_name(self.netlink.links().await?, &wanted.interfaces);
        for link in links
            .values()
            .filter(|link| wanted.ipv6.contains(&link.name))
        {
            if !link.all_multicast {
                self.netlink.receive_all_multicast(link.ifindex).await?;
            }
        }
        let next_hops = host.next_hops(&self.netlink, &wanted, &links).await?;

        let mut core = self.core.lock().await;
        let core = &mut *core;
        let largest = self.kernel.largest_packet();
        tokio::task::block_in_place(|| {
            host.bring_into_step(core, &links, next_hops.found, largest)
        })?;

        // How it is attached is known only now.
        let links = by_name(self.netlink.links().await?, &wanted.interfaces);
        let status = HostStatus {
            attachments: host
                .describe(&self.netlink, &wanted.interfaces, &links)
                .await,
            unreachable: next_hops.missing,
        };
        announce(&core.host, &status);
        core.host = status;
        Ok(())
    }
}

fn by_name(links: Vec<Link>, wanted: &BTreeSet<String>) -> BTreeMap<String, Link> {
    links
        .into_iter()
        .filter(|link| wanted.contains(&link.name))
        .map(|link| (link.name.clone(), link))
        .collect()
}

/// Backends, and how to get there.
struct NextHops {
    found: HashMap<(Reference, IpAddr), NextHop>,
    missing: HashMap<(Reference, IpAddr), String>,
}

impl Host {
    /// Where backends are; asks the kernel to resolve those that are not known yet.
    async fn next_hops(
        &mut self,
        netlink: &Netlink,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
    ) -> Result<NextHops> {
        let mut ways = Vec::new();
        let mut missing = HashMap::new();
        for (network, interfaces, address) in &wanted.backends {
            let key = (network.clone(), *address);
            let up: Vec<&Link> = interfaces
                .iter()
                .filter_map(|name| links.get(name))
                .filter(|l| l.up)
                .collect();
            let Some(link) = way_out(netlink, &up, *address).await else {
                missing.insert(key, "its network's interface is missing or down".to_owned());
                continue;
            };
            match netlink.next_hop(link.ifindex, *address).await {
                Ok(hop) => ways.push((key, link.name.clone(), link.ifindex, hop)),
                Err(error) => {
                    missing.insert(key, format!("{error:#}"));
                }
            }
        }
        self.manage(
            netlink,
            ways.iter()
                .map(|(_, _, ifindex, hop)| (*ifindex, *hop))
                .collect(),
        )
        .await;
        let neighbours = netlink.neighbours().await?;
        let mut found = HashMap::new();
        for (key, interface, ifindex, hop) in ways {
            match neighbours.get(&(ifindex, hop)) {
                Some(mac) => {
                    let next_hop = NextHop {
                        interface,
                        mac: *mac,
                    };
                    found.insert(key, next_hop);
                }
                None => {
                    missing.insert(key, format!("{hop} does not answer on {interface}"));
                }
            }
        }
        Ok(NextHops { found, missing })
    }

    async fn manage(&mut self, netlink: &Netlink, wanted: BTreeSet<(u32, IpAddr)>) {
        for (ifindex, address) in self.managed.difference(&wanted) {
            netlink.forget_neighbour(*ifindex, *address).await;
        }
        self.managed.retain(|neighbour| wanted.contains(neighbour));
        for (ifindex, address) in wanted {
            if self.managed.contains(&(ifindex, address)) {
                continue;
            }
            match netlink.manage_neighbour(ifindex, address).await {
                Ok(()) => {
                    self.managed.insert((ifindex, address));
                }
                Err(error) => warn!("{error:#}"),
            }
        }
    }

    /// First the maps, then the program onto new interfaces: where the program runs, it finds its
    /// network's rules in force.
    fn bring_into_step(
        &mut self,
        core: &mut Core,
        links: &BTreeMap<String, Link>,
        next_hops: HashMap<(Reference, IpAddr), NextHop>,
        largest: Option<u32>,
    ) -> Result<()> {
        let present: BTreeSet<u32> = links.values().map(|link| link.ifindex).collect();
        self.attached.retain(|ifindex| present.contains(ifindex));
        self.failed.clear();
        self.largest = largest;
        let interfaces: BTreeMap<_, _> = links
            .values()
            .filter_map(usable)
            .map(|(name, interface)| (name, limited(interface, largest)))
            .collect();
        for name in interfaces.keys() {
            // Whoever was asking for its addresses meanwhile has forgotten them.
            if !core.observed().interfaces.contains_key(name)
                && let Some(network) = core.state.network_of_interface(name)
            {
                core.detection.announce_again(network);
            }
        }
        let observed = core.observed_mut();
        observed.interfaces = interfaces;
        observed.next_hops = next_hops;
        core.reconcile()?;
        for link in links.values().filter(|link| usable(link).is_some()) {
            // Taken off by somebody else, or never put on by this process.
            if self.attached.contains(&link.ifindex) && link.xdp.is_some() {
                continue;
            }
            match core.program.attach(link.ifindex) {
                Ok(()) => {
                    self.attached.insert(link.ifindex);
                }
                Err(error) => {
                    self.attached.remove(&link.ifindex);
                    self.failed.insert(link.ifindex, format!("{error:#}"));
                    core.observed_mut().interfaces.remove(&link.name);
                }
            }
        }
        core.program.detach_others(&present)?;
        if !self.failed.is_empty() {
            core.reconcile()?;
        }
        Ok(())
    }

    /// How things stand with each interface, and what is wrong with it.
    async fn describe(
        &self,
        netlink: &Netlink,
        wanted: &BTreeSet<String>,
        links: &BTreeMap<String, Link>,
    ) -> BTreeMap<String, AttachmentState> {
        let mode = |link: &Link| match link.xdp {
            _ if !self.attached.contains(&link.ifindex) => None,
            Some(XdpAttachment::Native) => Some(AttachMode::Native),
            Some(XdpAttachment::Generic) => Some(AttachMode::Generic),
            None => None,
        };
        let any_native = links
            .values()
            .any(|link| mode(link) == Some(AttachMode::Native));
        let mut states = BTreeMap::new();
        for name in wanted {
            let mut state = AttachmentState::default();
            match links.get(name) {
                None => state.problems.push(format!(
                    "there is no interface {name} on this host: its network is unreachable until \
                     it comes"
                )),
                Some(link) => {
                    state.mode = mode(link);
                    state.problems = self.problems(netlink, link, state.mode, any_native).await;
                    state.link = Some(link.clone());
                }
            }
            states.insert(name.clone(), state);
        }
        states
    }

    async fn problems(
        &self,
        netlink: &Netlink,
        link: &Link,
        mode: Option<AttachMode>,
        any_native: bool,
    ) -> Vec<String> {
        let name = &link.name;
        let mut problems = Vec::new();
        if link.mac.is_none() {
            problems.push(format!("{name} is not an Ethernet interface"));
        }
        if !link.up {
            problems.push(format!("{name} is down: ip link set dev {name} up"));
        }
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
        if any_native && netlink.features().takes_redirects(link.ifindex).await == Some(false) {
            problems.push(format!(
                "what is forwarded into {name} is lost: its driver takes no redirected frames. If \
                 it is a veth, run `ethtool -K FAR_END gro on` where its far end is"
            ));
        }
        problems
    }
}

/// The interface of those that leads to the backend: the one that the kernel would take, else the
/// first.
async fn way_out<'a>(
    netlink: &Netlink,
    interfaces: &[&'a Link],
    address: IpAddr,
) -> Option<&'a Link> {
    if let [first, _, ..] = interfaces {
        for link in interfaces {
            if netlink.routes_by(link.ifindex, address).await {
                return Some(link);
            }
        }
        return Some(first);
    }
    interfaces.first().copied()
}

/// The interface, if it can carry packets.
fn usable(link: &Link) -> Option<(String, Interface)> {
    let interface = Interface {
        ifindex: link.ifindex,
        mac: link.mac.filter(|_| link.up)?,
        mtu: link.mtu,
    };
    Some((link.name.clone(), interface))
}

/// The interface, with packets no longer than the kernel forwards.
fn limited(interface: Interface, largest: Option<u32>) -> Interface {
    Interface {
        mtu: largest.map_or(interface.mtu, |largest| interface.mtu.min(largest)),
        ..interface
    }
}

/// Logs what has become wrong, and what is right again.
fn announce(before: &HostStatus, now: &HostStatus) {
    for (name, state) in &now.attachments {
        let old = before
            .attachments
            .get(name)
            .map_or(&[][..], |state| &state.problems);
        for problem in state
            .problems
            .iter()
            .filter(|problem| !old.contains(problem))
        {
            warn!("{problem}");
        }
        if state.problems.is_empty() && (!old.is_empty() || !before.attachments.contains_key(name))
        {
            info!("interface {name} is in order");
        }
    }
    for ((network, address), reason) in &now.unreachable {
        if !before
            .unreachable
            .contains_key(&(network.clone(), *address))
        {
            warn!("backend {address} in {network} can't be reached: {reason}");
        }
    }
    for (network, address) in before.unreachable.keys() {
        if !now.unreachable.contains_key(&(network.clone(), *address)) {
            info!("backend {address} in {network} can be reached");
        }
    }
}
