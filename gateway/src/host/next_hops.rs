//! Next hops of backends: the neighbour that leads to each, and its resolution. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use gateway_common::packet::Mac;
use jiff::{SignedDuration, Timestamp};

use crate::{
    compile::observed::{BackendKey, ObservedNextHop},
    host::routes::BackendRoute,
    neighbour::{
        InterfaceAddress, Neighbour, NeighbourMessage, NeighbourTable, Sender, Solicitation,
        WantedNeighbours, select_sender,
    },
};

/// Next hops of backends, and the states of the neighbours that are next hops. Netlink events about other neighbours can
/// be ignored.
#[derive(Debug)]
pub struct NextHopResolver {
    /// Next hop of each backend; or the reason why there is none.
    next_hops: HashMap<BackendKey, Result<Neighbour, String>>,
    backends_by_next_hop: BTreeMap<Neighbour, BTreeSet<BackendKey>>,
    table: NeighbourTable,
    /// Names of interfaces that lead to next hops.
    interfaces: BTreeMap<u32, String>,
    /// Addresses of the host's interfaces, by interface index.
    addresses: BTreeMap<u32, Vec<InterfaceAddress>>,
    /// MAC addresses of next hops that an earlier agent has resolved, by interface index and backend.
    former: HashMap<(u32, BackendKey), Mac>,
    /// One moment on both clocks.
    started: (Instant, Timestamp),
}

/// Result of the search for a backend's next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopResult {
    /// The next hop is resolved.
    Resolved {
        /// The next hop.
        hop: ObservedNextHop,
        /// True if it has answered with this MAC address, which otherwise comes from elsewhere.
        is_confirmed: bool,
    },
    /// The next hop is being asked for, as the text says, and has had no time to answer yet.
    Pending(String),
    /// The backend can't be reached, for the reason in the text.
    Unreachable(String),
    /// No service has the backend any more.
    Unused,
}

impl Default for NextHopResolver {
    fn default() -> Self {
        Self::new(HashMap::new())
    }
}

impl NextHopResolver {
    /// Returns a resolver without backends. `former` holds the MAC addresses that an earlier agent has resolved, by
    /// interface index and backend: they are used until the neighbours themselves say otherwise.
    #[must_use]
    pub fn new(former: HashMap<(u32, BackendKey), Mac>) -> Self {
        Self {
            next_hops: HashMap::new(),
            backends_by_next_hop: BTreeMap::new(),
            table: NeighbourTable::default(),
            interfaces: BTreeMap::new(),
            addresses: BTreeMap::new(),
            former,
            started: (Instant::now(), Timestamp::now()),
        }
    }

    /// Returns the set of neighbours that are next hops, which follows the resolver.
    #[must_use]
    pub fn wanted(&self) -> Arc<WantedNeighbours> {
        self.table.wanted()
    }

    /// Returns the backends that are reached through a neighbour.
    pub fn backends_behind(&self, next_hop: &Neighbour) -> impl Iterator<Item = &BackendKey> {
        self.backends_by_next_hop
            .get(next_hop)
            .into_iter()
            .flatten()
    }

    /// Returns all backends that a route was looked up for, with or without success.
    pub fn backends(&self) -> impl Iterator<Item = &BackendKey> {
        self.next_hops.keys()
    }

    /// Sets the addresses of the host's interfaces.
    pub fn set_addresses(&mut self, addresses: impl IntoIterator<Item = InterfaceAddress>) {
        self.addresses.clear();
        for address in addresses {
            self.addresses
                .entry(address.ifindex)
                .or_default()
                .push(address);
        }
    }

    /// Takes over the routes of backends. Their next hops are wanted from now on.
    pub fn update(&mut self, routes: &BTreeMap<BackendKey, BackendRoute>, now: Instant) {
        for (key, route) in routes {
            match route {
                BackendRoute::Unused => self.remove(key),
                BackendRoute::Unreachable(reason) => self.set(key, Err(reason.clone()), now),
                BackendRoute::Via {
                    interface,
                    next_hop,
                    kernel,
                } => {
                    let kernel = kernel.unwrap_or_default();
                    let former = self.former.remove(&(next_hop.0, key.clone()));
                    self.interfaces.insert(next_hop.0, interface.clone());
                    self.table.want(*next_hop, former.or(kernel.mac), now);
                    let configured = kernel.mac.filter(|_| kernel.is_static);
                    self.table.set_static(*next_hop, configured, now);
                    let known = self.table.mac(next_hop);
                    if kernel.is_confirmed && kernel.mac.is_some() && kernel.mac != known {
                        self.table.recheck(*next_hop, true, now);
                    }
                    self.set(key, Ok(*next_hop), now);
                }
            }
        }
    }

    /// Forgets the MAC addresses that an earlier agent has resolved, after all backends were scanned.
    pub fn forget_former(&mut self) {
        self.former = HashMap::new();
    }

    /// Sets the next hop of a backend, or the reason why there is none.
    pub(super) fn set(
        &mut self,
        key: &BackendKey,
        next_hop: Result<Neighbour, String>,
        now: Instant,
    ) {
        if self.next_hops.get(key) == Some(&next_hop) {
            return;
        }
        if let Ok(next_hop) = &next_hop {
            self.table.want(*next_hop, None, now);
            self.backends_by_next_hop
                .entry(*next_hop)
                .or_default()
                .insert(key.clone());
        }
        let before = self.next_hops.insert(key.clone(), next_hop);
        self.unlink(key, before);
    }

    /// Forgets a backend that no service has any more.
    fn remove(&mut self, key: &BackendKey) {
        let before = self.next_hops.remove(key);
        self.unlink(key, before);
    }

    /// Removes a backend from those of its former next hop, which is no longer wanted if no other backend has it.
    fn unlink(&mut self, key: &BackendKey, before: Option<Result<Neighbour, String>>) {
        let Some(Ok(next_hop)) = before else {
            return;
        };
        if let Some(others) = self.backends_by_next_hop.get_mut(&next_hop) {
            others.remove(key);
            if others.is_empty() {
                self.backends_by_next_hop.remove(&next_hop);
                self.table.unwant(&next_hop);
            }
        }
    }

    /// Handles a message of a neighbour.
    pub fn on_message(&mut self, ifindex: u32, message: &NeighbourMessage, now: Instant) {
        self.table.on_message(ifindex, message, now);
    }

    /// Confirms the next hop of a backend now, because the backend may not be reachable any more. `ask_all` states that
    /// the next hop probably has another MAC address.
    pub fn recheck(&mut self, key: &BackendKey, ask_all: bool, now: Instant) {
        if let Some(Ok(next_hop)) = self.next_hops.get(key) {
            self.table.recheck(*next_hop, ask_all, now);
        }
    }

    /// Confirms all next hops on an interface now, because the interface changed.
    pub fn recheck_interface(&mut self, ifindex: u32, now: Instant) {
        self.table.recheck_interface(ifindex, now);
    }

    /// Returns the solicitations that are due. `is_usable` states that an interface carries packets, and `snat_address`
    /// returns a SNAT address of the network that is attached to an interface, for a neighbour.
    pub fn step(
        &mut self,
        now: Instant,
        is_usable: impl Fn(u32) -> bool,
        mut snat_address: impl FnMut(&str, IpAddr) -> Option<IpAddr>,
    ) -> Vec<Solicitation> {
        let (addresses, interfaces) = (&self.addresses, &self.interfaces);
        self.table.step(now, |(ifindex, neighbour)| {
            if !is_usable(*ifindex) {
                return Sender::UnusableInterface;
            }
            let own = addresses.get(ifindex).map_or(&[][..], Vec::as_slice);
            let interface = interfaces.get(ifindex);
            select_sender(*neighbour, own, || snat_address(interface?, *neighbour))
        })
    }

    /// Returns the time of the next step.
    #[must_use]
    pub fn next_step(&self) -> Option<Instant> {
        self.table.next_step()
    }

    /// Returns the backends whose next hops changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<BackendKey> {
        let changed = self.table.take_changed();
        let backends = changed
            .iter()
            .filter_map(|next_hop| self.backends_by_next_hop.get(next_hop));
        backends.flatten().cloned().collect()
    }

    /// Returns the next hop of a backend, or the reason why there is none.
    #[must_use]
    pub fn result(&self, key: &BackendKey) -> NextHopResult {
        let next_hop = match self.next_hops.get(key) {
            None => return NextHopResult::Unused,
            Some(Err(reason)) => return NextHopResult::Unreachable(reason.clone()),
            Some(Ok(next_hop)) => next_hop,
        };
        let (ifindex, address) = next_hop;
        let interface = self.interfaces.get(ifindex).cloned().unwrap_or_default();
        if let Some(mac) = self.table.mac(next_hop) {
            return NextHopResult::Resolved {
                hop: ObservedNextHop { interface, mac },
                is_confirmed: self.table.is_confirmed(next_hop),
            };
        }
        let pending =
            || NextHopResult::Pending(format!("{address} is being resolved on {interface}"));
        let Some(unanswered) = self.table.unanswered(next_hop) else {
            return pending();
        };
        let (protocol, requests) = match address {
            IpAddr::V4(_) => ("ARP", "request"),
            IpAddr::V6(_) => ("neighbour discovery", "solicitation"),
        };
        let sender = match unanswered.sender {
            Sender::Missing => {
                return NextHopResult::Unreachable(format!(
                    "{address} can't be asked for on {interface}, because neither the interface nor a service has an \
                     address to ask from: enable IPv6 on {interface} (sysctl net.ipv6.conf.{interface}.disable_ipv6=0), \
                     or give it an address"
                ));
            }
            Sender::UnusableInterface => {
                return NextHopResult::Unreachable(format!(
                    "{address} can't be asked for, because {interface} can't be used: see its problems in plgw status"
                ));
            }
            Sender::Address(sender) => sender.to_string(),
            Sender::Unspecified => "no address".to_owned(),
        };
        if unanswered.count <= 1 {
            return pending();
        }
        NextHopResult::Unreachable(format!(
            "{address} does not answer on {interface}: asked by {protocol} from {sender} every second since {} ({} \
             {requests}s)",
            self.wall_clock(unanswered.since),
            unanswered.count
        ))
    }

    /// Returns a moment as users read it, in whole seconds.
    fn wall_clock(&self, at: Instant) -> Timestamp {
        let (instant, timestamp) = self.started;
        let elapsed = at.saturating_duration_since(instant);
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or_default();
        let exact = timestamp.checked_add(elapsed).unwrap_or(timestamp);
        Timestamp::from_second(exact.as_second()).unwrap_or(exact)
    }
}

#[cfg(test)]
mod tests;
