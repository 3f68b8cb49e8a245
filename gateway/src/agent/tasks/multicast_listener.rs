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
    mld::{MldMessage, MulticastListener, Query, solicited_node_group},
    model::Reference,
    receive::{MldQueryFilter, ReceiveSocket},
};

/// Interval of steps. With the messages of one step, at most 500 a second leave an interface.
const STEP_INTERVAL: Duration = Duration::from_millis(100);
/// Number of queries that are read at a time.
const MAX_QUERIES: usize = 64;
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
    /// Revision of the local addresses that the memberships are of.
    revision: Option<u64>,
}

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, socket: ReceiveSocket<MldQueryFilter>) {
    let mut members = Members::default();
    let mut ticks = interval(STEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut queries = Vec::new();
        tokio::select! {
            _ = ticks.tick() => {}
            received = socket.receive(MAX_QUERIES, |frame| {
                queries.extend(Query::parse(frame.bytes).map(|query| (frame.ifindex, query)));
            }) => if let Err(error) = received {
                warn!("multicast: queries not received error=\"{error}\"");
                sleep(RETRY_INTERVAL).await;
            }
        }
        let now = Instant::now();
        for (ifindex, query) in queries {
            if let Some(member) = members.by_interface.get_mut(&ifindex) {
                member.listener.on_query(query, now);
            }
        }
        let mut controller = agent.controller.lock().await;
        members.update(&mut controller);
        drop(controller);
        let messages = members.step(now);
        send(&agent, messages).await;
    }
}

impl Members {
    /// Joins and leaves groups after changes of the local addresses or the interfaces.
    fn update(&mut self, controller: &mut Controller) {
        let returned = std::mem::take(&mut controller.observed.returned_networks);
        let revision = controller.address_revision();
        if self.revision != Some(revision) {
            self.revision = Some(revision);
            self.set_groups(controller);
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

    fn set_groups(&mut self, controller: &Controller) {
        let mut present = BTreeSet::new();
        for (reference, record) in &controller.state().networks {
            let groups = solicited_node_groups(controller, record.object.number);
            for attachment in &record.object.attachments {
                let interface = controller.observed().interfaces.get(&attachment.interface);
                let Some(interface) = interface.filter(|interface| interface.has_carrier) else {
                    continue;
                };
                present.insert(interface.ifindex);
                let member = self.by_interface.entry(interface.ifindex).or_default();
                member.mac = interface.mac;
                if member.network.as_ref() != Some(reference) {
                    member.network = Some(reference.clone());
                }
                member.listener.set_groups(groups.clone());
            }
        }
        self.by_interface
            .retain(|ifindex, _| present.contains(ifindex));
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

/// Returns the groups of all local addresses of the network, including those that are still being probed (RFC 4862,
/// section 5.4.2).
fn solicited_node_groups(controller: &Controller, network: u32) -> BTreeSet<Ipv6Addr> {
    let from = AddressKey {
        network,
        address: IpAddress::default(),
    };
    let addresses = controller.map_snapshot().addresses.range(from..);
    let addresses = addresses.map_while(|(key, _)| (key.network == network).then_some(key.address));
    addresses
        .filter_map(|address| match IpAddr::from(address) {
            IpAddr::V6(address) => Some(solicited_node_group(address)),
            IpAddr::V4(_) => None,
        })
        .collect()
}

/// Sends messages from the link-local addresses of their interfaces, as routers demand, or from the unspecified address,
/// which bridges accept too (RFC 3590).
async fn send(agent: &Agent, messages: Vec<(u32, Mac, MldMessage)>) {
    if messages.is_empty() {
        return;
    }
    let mut sources = BTreeMap::new();
    for own in agent.netlink.addresses().await.unwrap_or_default() {
        if let IpAddr::V6(address) = own.address
            && own.is_usable
            && address.is_unicast_link_local()
        {
            sources.insert(own.ifindex, address);
        }
    }
    for (ifindex, mac, message) in messages {
        let source = sources.get(&ifindex).copied();
        let frame = message.frame(mac, source.unwrap_or(Ipv6Addr::UNSPECIFIED));
        agent.send_frame(ifindex, &frame);
    }
}
