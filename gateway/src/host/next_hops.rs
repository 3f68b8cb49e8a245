//! Next hops of backends: the interface and the neighbour that lead to each. Netlink events about other neighbours
//! can be ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use gateway_common::packet::Mac;
use log::warn;

use crate::{
    compile::observed::{BackendKey, ObservedNextHop},
    netlink::{Link, Netlink},
};

/// Neighbour: interface number and IP address.
pub type Neighbour = (u32, IpAddr);

/// Resolver of backends' next hops. Installs managed neighbour entries, which the kernel keeps resolved.
#[derive(Debug, Default)]
pub struct NextHopResolver {
    /// Next hop of each backend; `None` if there is none.
    next_hops: HashMap<BackendKey, Option<Neighbour>>,
    backends_by_next_hop: BTreeMap<Neighbour, BTreeSet<BackendKey>>,
    /// Neighbours with a managed entry.
    managed: BTreeSet<Neighbour>,
}

/// Result of the search for a backend's next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopResult {
    /// The next hop is resolved.
    Resolved(ObservedNextHop),
    /// The backend can't be reached, for the reason in the text.
    Unreachable(String),
    /// No service has the backend any more.
    Unused,
}

impl NextHopResolver {
    /// Returns the backends that are reached through a neighbour.
    pub fn backends_behind(&self, next_hop: &Neighbour) -> impl Iterator<Item = &BackendKey> {
        self.backends_by_next_hop
            .get(next_hop)
            .into_iter()
            .flatten()
    }

    /// Returns all backends that were resolved, with or without success.
    pub fn backends(&self) -> impl Iterator<Item = &BackendKey> {
        self.next_hops.keys()
    }

    /// Sets the next hop of a backend.
    pub fn set(&mut self, key: &BackendKey, next_hop: Option<Neighbour>) {
        self.remove(key);
        if let Some(next_hop) = next_hop {
            self.backends_by_next_hop
                .entry(next_hop)
                .or_default()
                .insert(key.clone());
        }
        self.next_hops.insert(key.clone(), next_hop);
    }

    /// Forgets a backend that no service has any more.
    pub fn remove(&mut self, key: &BackendKey) {
        let Some(Some(next_hop)) = self.next_hops.remove(key) else {
            return;
        };
        if let Some(others) = self.backends_by_next_hop.get_mut(&next_hop) {
            others.remove(key);
            if others.is_empty() {
                self.backends_by_next_hop.remove(&next_hop);
            }
        }
    }

    /// Resolves the next hops of backends, which are given with their networks' interfaces; a backend without any is
    /// forgotten. `all` states that there are no other backends. The kernel is asked to resolve neighbours that are not
    /// known yet.
    ///
    /// # Errors
    /// When a netlink request fails.
    pub async fn resolve(
        &mut self,
        netlink: &Netlink,
        backends: &BTreeMap<BackendKey, Vec<String>>,
        all: bool,
        links: &BTreeMap<String, Link>,
    ) -> Result<BTreeMap<BackendKey, NextHopResult>> {
        let mut results = BTreeMap::new();
        let mut names = HashMap::new();
        let mut next_hops = BTreeSet::new();
        for (key, interfaces) in backends {
            let (_, address) = key;
            if interfaces.is_empty() {
                self.remove(key);
                results.insert(key.clone(), NextHopResult::Unused);
                continue;
            }
            let up = interfaces.iter().filter_map(|name| links.get(name));
            let up: Vec<&Link> = up.filter(|link| link.up).collect();
            let Some(link) = select_interface(netlink, &up, *address).await else {
                self.set(key, None);
                let missing = "the interface of its network is missing or down".to_owned();
                results.insert(key.clone(), NextHopResult::Unreachable(missing));
                continue;
            };
            let hop = netlink.next_hop(link.ifindex, *address).await?;
            let next_hop = (link.ifindex, hop);
            self.set(key, Some(next_hop));
            names.insert(link.ifindex, link.name.clone());
            next_hops.insert(next_hop);
        }
        self.manage_neighbours(netlink, &next_hops).await;
        let addresses = mac_addresses(netlink, all, &next_hops).await?;
        for key in backends.keys() {
            let Some(Some(next_hop)) = self.next_hops.get(key) else {
                continue;
            };
            let (ifindex, hop) = next_hop;
            let Some(interface) = names.get(ifindex).cloned() else {
                continue;
            };
            let outcome = match addresses.get(next_hop) {
                Some(mac) => NextHopResult::Resolved(ObservedNextHop {
                    interface,
                    mac: *mac,
                }),
                None => NextHopResult::Unreachable(format!("{hop} does not answer on {interface}")),
            };
            results.insert(key.clone(), outcome);
        }
        Ok(results)
    }

    /// Installs managed neighbour entries for these next hops, and deletes those that no backend uses any more.
    async fn manage_neighbours(&mut self, netlink: &Netlink, next_hops: &BTreeSet<Neighbour>) {
        let idle = self.managed.iter();
        let idle: Vec<Neighbour> = idle
            .filter(|neighbour| !self.backends_by_next_hop.contains_key(neighbour))
            .copied()
            .collect();
        for neighbour in idle {
            netlink.delete_neighbour(neighbour.0, neighbour.1).await;
            self.managed.remove(&neighbour);
        }
        for (ifindex, address) in next_hops {
            if self.managed.contains(&(*ifindex, *address)) {
                continue;
            }
            match netlink.manage_neighbour(*ifindex, *address).await {
                Ok(()) => {
                    self.managed.insert((*ifindex, *address));
                }
                Err(error) => warn!("host: neighbour entry not managed error=\"{error:#}\""),
            }
        }
    }
}

/// Returns the MAC addresses of neighbours, as far as they are resolved.
async fn mac_addresses(
    netlink: &Netlink,
    all: bool,
    neighbours: &BTreeSet<Neighbour>,
) -> Result<HashMap<Neighbour, Mac>> {
    if all {
        return netlink.neighbours().await;
    }
    let mut known = HashMap::new();
    for (ifindex, address) in neighbours {
        if let Some(mac) = netlink.neighbour(*ifindex, *address).await? {
            known.insert((*ifindex, *address), mac);
        }
    }
    Ok(known)
}

/// Returns the interface that leads to the backend: the one that the kernel would route through, else the first.
async fn select_interface<'a>(
    netlink: &Netlink,
    interfaces: &[&'a Link],
    address: IpAddr,
) -> Option<&'a Link> {
    if let [first, _, ..] = interfaces {
        for link in interfaces {
            if netlink.routes_through(link.ifindex, address).await {
                return Some(link);
            }
        }
        return Some(first);
    }
    interfaces.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_indexed_by_next_hop() {
        let mut resolver = NextHopResolver::default();
        let key = |last: &str| -> BackendKey {
            let address = format!("10.1.0.{last}").parse().unwrap();
            ("provider/net".parse().unwrap(), address)
        };
        let router = (4, "10.1.0.1".parse().unwrap());
        resolver.set(&key("10"), Some(router));
        resolver.set(&key("11"), Some(router));
        resolver.set(&key("12"), None);
        let behind = |resolver: &NextHopResolver| {
            resolver
                .backends_behind(&router)
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(behind(&resolver), [key("10"), key("11")]);
        resolver.set(&key("10"), Some((4, key("10").1)));
        assert_eq!(behind(&resolver), [key("11")]);
        resolver.remove(&key("11"));
        resolver.remove(&key("12"));
        assert_eq!(behind(&resolver), []);
        assert_eq!(resolver.backends_by_next_hop.len(), 1);
        assert_eq!(resolver.backends().collect::<Vec<_>>(), [&key("10")]);
    }
}
