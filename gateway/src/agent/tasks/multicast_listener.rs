//! Multicast listener: joins the solicited-node groups of local addresses, and answers queries for them (MLD).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_common::{IpAddress, maps::AddressKey, packet::Mac};
use log::warn;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    agent::{Agent, controller::Controller},
    compile::plan::AddressChanges,
    mld::{MldMessage, MulticastListener, Query, solicited_node_group},
    model::Reference,
    netlink::HostAddress,
    receive::{MldQueryFilter, ReceiveSocket},
};

/// Interval of steps. With the messages of one step, at most 500 a second leave an interface.
const STEP_INTERVAL: Duration = Duration::from_millis(100);
/// Number of queries that are read at a time.
const MAX_QUERIES: usize = 64;
/// Number of reads between two steps. A flood beyond that stays in the socket's queue, and the kernel drops the rest.
const MAX_READS: usize = 16;
/// Time for which the host's addresses are taken as unchanged.
const SOURCES_LIFETIME: Duration = Duration::from_secs(1);
/// Delay after a failure of the socket.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Memberships of an interface, with its MAC address.
#[derive(Debug, Default)]
struct Member {
    mac: Mac,
    network: Option<Reference>,
    listener: MulticastListener,
}

/// Memberships of all interfaces, by interface number.
#[derive(Debug, Default)]
struct Members {
    by_interface: BTreeMap<u32, Member>,
    /// Groups of the networks that have interfaces, by network number.
    groups: BTreeMap<u32, BTreeSet<Ipv6Addr>>,
    /// True after the first update.
    is_complete: bool,
}

/// Interface of a network that has local addresses, as copied from the controller.
#[derive(Debug)]
struct MemberInterface {
    ifindex: u32,
    mac: Mac,
    network: Reference,
    number: u32,
}

/// Interfaces, and the local addresses of those networks where they changed, as copied from the controller.
#[derive(Debug, Default)]
struct Update {
    interfaces: Vec<MemberInterface>,
    addresses: BTreeMap<u32, Vec<Ipv6Addr>>,
}

/// Link-local addresses of the interfaces.
#[derive(Debug, Default)]
struct Sources {
    by_interface: BTreeMap<u32, Ipv6Addr>,
    read_at: Option<Instant>,
}

/// Runs the task. Queries are only recorded when they arrive: everything else is done at the pace of the steps, whatever
/// is received.
pub(crate) async fn run(agent: Arc<Agent>, socket: ReceiveSocket<MldQueryFilter>) {
    let mut members = Members::default();
    let mut sources = Sources::default();
    let mut reads = 0;
    let mut ticks = interval(STEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut queries = Vec::new();
        let is_step = tokio::select! {
            biased;
            _ = ticks.tick() => true,
            received = socket.receive(MAX_QUERIES, |frame| {
                queries.extend(Query::parse(frame.bytes).map(|query| (frame.ifindex, query)));
            }), if reads < MAX_READS => {
                reads += 1;
                if let Err(error) = received {
                    warn!("multicast: queries not received error=\"{error}\"");
                    sleep(RETRY_INTERVAL).await;
                }
                false
            }
        };
        let now = Instant::now();
        for (ifindex, query) in queries {
            if let Some(member) = members.by_interface.get_mut(&ifindex) {
                member.listener.on_query(query, now);
            }
        }
        if is_step {
            reads = 0;
            members.update(&agent).await;
            sources.send(&agent, members.step(now), now).await;
        }
    }
}

impl Members {
    /// Joins and leaves groups after changes of the local addresses or the interfaces.
    async fn update(&mut self, agent: &Agent) {
        let mut controller = agent.controller.lock().await;
        let returned = std::mem::take(&mut controller.observed.returned_networks);
        let changes = controller.take_address_changes();
        let has_changes = !changes.is_empty() || !self.is_complete;
        let update = has_changes
            .then(|| tokio::task::block_in_place(|| self.copy_update(&controller, &changes)));
        drop(controller);
        if let Some(update) = update {
            tokio::task::block_in_place(|| self.apply(update));
            self.is_complete = true;
        }
        for member in self.by_interface.values_mut() {
            if member
                .network
                .as_ref()
                .is_some_and(|network| returned.contains(network))
            {
                member.listener.rejoin();
            }
        }
    }

    /// Copies what the memberships depend on, so that the controller is not locked while they are computed.
    fn copy_update(&self, controller: &Controller, changes: &AddressChanges) -> Update {
        let mut update = Update::default();
        for (reference, record) in &controller.state().networks {
            let number = record.object.number;
            for attachment in &record.object.attachments {
                let interface = controller.observed().interfaces.get(&attachment.interface);
                let Some(interface) = interface.filter(|interface| interface.has_carrier) else {
                    continue;
                };
                update.interfaces.push(MemberInterface {
                    ifindex: interface.ifindex,
                    mac: interface.mac,
                    network: reference.clone(),
                    number,
                });
                if changes.networks.contains(&number) || !self.groups.contains_key(&number) {
                    let addresses = || local_addresses(controller, number);
                    update.addresses.entry(number).or_insert_with(addresses);
                }
            }
        }
        update
    }

    fn apply(&mut self, update: Update) {
        let mut changed = BTreeSet::new();
        for (number, addresses) in update.addresses {
            let groups = addresses.into_iter().map(solicited_node_group).collect();
            if self.groups.get(&number) != Some(&groups) {
                self.groups.insert(number, groups);
                changed.insert(number);
            }
        }
        let (mut present, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for interface in update.interfaces {
            let number = interface.number;
            present.insert(interface.ifindex);
            numbers.insert(number);
            let member = self.by_interface.entry(interface.ifindex).or_default();
            member.mac = interface.mac;
            let is_of_network = member.network.as_ref() == Some(&interface.network);
            if !is_of_network || changed.contains(&number) {
                member.network = Some(interface.network);
                let groups = self.groups.get(&number).cloned();
                member.listener.set_groups(groups.unwrap_or_default());
            }
        }
        self.by_interface
            .retain(|ifindex, _| present.contains(ifindex));
        // A network without interfaces is computed afresh when it has one.
        self.groups.retain(|number, _| numbers.contains(number));
    }

    /// Returns the messages that are due, with the interface and the MAC address that each is sent from.
    fn step(&mut self, now: Instant) -> Vec<(u32, Mac, MldMessage)> {
        let mut due = Vec::new();
        for (ifindex, member) in &mut self.by_interface {
            if !member.listener.is_idle() {
                let messages = member.listener.step(now).into_iter();
                due.extend(messages.map(|message| (*ifindex, member.mac, message)));
            }
        }
        due
    }
}

/// Returns all IPv6 addresses of the network, including those that are still being probed (RFC 4862, section 5.4.2).
fn local_addresses(controller: &Controller, network: u32) -> Vec<Ipv6Addr> {
    let from = AddressKey {
        network,
        address: IpAddress::default(),
    };
    let addresses = controller.map_snapshot().addresses.range(from..);
    let addresses = addresses.map_while(|(key, _)| (key.network == network).then_some(key.address));
    addresses
        .filter_map(|address| match IpAddr::from(address) {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
        .collect()
}

impl Sources {
    /// Sends messages from the link-local addresses of their interfaces, as routers demand, or from the unspecified
    /// address, which bridges accept too (RFC 3590).
    async fn send(&mut self, agent: &Agent, messages: Vec<(u32, Mac, MldMessage)>, now: Instant) {
        if messages.is_empty() {
            return;
        }
        let is_recent = |at: Instant| now.duration_since(at) < SOURCES_LIFETIME;
        if !self.read_at.is_some_and(is_recent) {
            self.read_at = Some(now);
            let addresses = agent.netlink.addresses().await.unwrap_or_default();
            self.by_interface = link_local_addresses(&addresses);
        }
        for (ifindex, mac, message) in messages {
            let source = self.by_interface.get(&ifindex).copied();
            let frame = message.frame(mac, source.unwrap_or(Ipv6Addr::UNSPECIFIED));
            agent.send_frame(ifindex, &frame);
        }
    }
}

fn link_local_addresses(addresses: &[HostAddress]) -> BTreeMap<u32, Ipv6Addr> {
    let usable = addresses.iter().filter(|own| own.is_usable);
    usable
        .filter_map(|own| match own.address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some((own.ifindex, address)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(ifindex: u32, number: u32) -> MemberInterface {
        let network = format!("network-{number}");
        MemberInterface {
            ifindex,
            mac: Mac::default(),
            network: Reference::new("tenant".parse().unwrap(), network.parse().unwrap()),
            number,
        }
    }

    fn update(interfaces: &[(u32, u32)], addresses: &[(u32, &str)]) -> Update {
        let interfaces = interfaces.iter().map(|(index, of)| interface(*index, *of));
        let addresses = addresses.iter();
        Update {
            interfaces: interfaces.collect(),
            addresses: addresses
                .map(|(number, address)| (*number, vec![address.parse().unwrap()]))
                .collect(),
        }
    }

    fn senders(members: &mut Members, now: Instant) -> Vec<u32> {
        let messages = members.step(now).into_iter();
        messages.map(|(ifindex, ..)| ifindex).collect()
    }

    #[test]
    fn only_interfaces_whose_groups_changed_report() {
        let mut members = Members::default();
        let now = Instant::now();
        let interfaces = [(11, 1), (12, 1), (21, 2)];
        members.apply(update(&interfaces, &[(1, "fd00::1"), (2, "fd00::2")]));
        assert_eq!(senders(&mut members, now), [11, 12, 21]);
        let now = now + Duration::from_secs(1);
        assert_eq!(senders(&mut members, now), [11, 12, 21], "repetition");
        members.apply(update(&interfaces, &[(1, "fd00::3"), (2, "fd00::2")]));
        assert_eq!(senders(&mut members, now), [11, 12]);
        // An interface that moves to another network takes that one's groups, and one that is gone is forgotten.
        let now = now + Duration::from_secs(10);
        senders(&mut members, now);
        members.apply(update(&[(11, 1), (12, 2)], &[(2, "fd00::2")]));
        assert_eq!(senders(&mut members, now), [12]);
        assert_eq!(members.by_interface.len(), 2);
        members.apply(update(&[(12, 2)], &[]));
        assert_eq!(members.groups.keys().collect::<Vec<_>>(), [&2]);
    }
}
