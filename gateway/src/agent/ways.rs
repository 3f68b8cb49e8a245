//! The ways to backends: by which interface, to which station.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use gateway_common::packet::Mac;
use log::warn;

use crate::{
    dataplane::observed::{BackendKey, NextHop},
    netlink::{Link, Netlink},
};

/// A station: interface number and address.
pub type Station = (u32, IpAddr);

/// Which station is next on the way to each backend. The kernel is asked to keep these known.
#[derive(Debug, Default)]
pub struct Ways {
    /// None: there is no way.
    stations: HashMap<BackendKey, Option<Station>>,
    behind: BTreeMap<Station, BTreeSet<BackendKey>>,
    /// Those that the kernel keeps.
    managed: BTreeSet<Station>,
}

/// What was found on looking for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Hop(NextHop),
    /// It can't be reached, and why.
    Missing(String),
    /// It is nobody's backend any more.
    Gone,
}

impl Ways {
    /// The backends that the station is next on the way to.
    pub fn behind(&self, station: &Station) -> impl Iterator<Item = &BackendKey> {
        self.behind.get(station).into_iter().flatten()
    }

    /// All backends that were looked for.
    pub fn known(&self) -> impl Iterator<Item = &BackendKey> {
        self.stations.keys()
    }

    /// Takes in which station is next.
    pub fn set(&mut self, key: &BackendKey, station: Option<Station>) {
        self.forget(key);
        if let Some(station) = station {
            self.behind.entry(station).or_default().insert(key.clone());
        }
        self.stations.insert(key.clone(), station);
    }

    /// Takes in that it is nobody's backend any more.
    pub fn forget(&mut self, key: &BackendKey) {
        let Some(Some(station)) = self.stations.remove(key) else {
            return;
        };
        if let Some(others) = self.behind.get_mut(&station) {
            others.remove(key);
            if others.is_empty() {
                self.behind.remove(&station);
            }
        }
    }

    /// Looks for backends, which come with their networks' interfaces: with none, one is nobody's any more.
    /// Asks the kernel to resolve stations that are not known yet. `all`: there are no others.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn look(
        &mut self,
        netlink: &Netlink,
        backends: &BTreeMap<BackendKey, Vec<String>>,
        all: bool,
        links: &BTreeMap<String, Link>,
    ) -> Result<BTreeMap<BackendKey, Found>> {
        let mut found = BTreeMap::new();
        let mut names = HashMap::new();
        let mut stations = BTreeSet::new();
        for (key, interfaces) in backends {
            let (_, address) = key;
            if interfaces.is_empty() {
                self.forget(key);
                found.insert(key.clone(), Found::Gone);
                continue;
            }
            let up = interfaces.iter().filter_map(|name| links.get(name));
            let up: Vec<&Link> = up.filter(|link| link.up).collect();
            let Some(link) = way_out(netlink, &up, *address).await else {
                self.set(key, None);
                let missing = "its network's interface is missing or down".to_owned();
                found.insert(key.clone(), Found::Missing(missing));
                continue;
            };
            let hop = netlink.next_hop(link.ifindex, *address).await?;
            let station = (link.ifindex, hop);
            self.set(key, Some(station));
            names.insert(link.ifindex, link.name.clone());
            stations.insert(station);
        }
        self.manage(netlink, &stations).await;
        let addresses = addresses(netlink, all, &stations).await?;
        for key in backends.keys() {
            let Some(Some(station)) = self.stations.get(key) else {
                continue;
            };
            let (ifindex, hop) = station;
            let Some(interface) = names.get(ifindex).cloned() else {
                continue;
            };
            let outcome = match addresses.get(station) {
                Some(mac) => Found::Hop(NextHop {
                    interface,
                    mac: *mac,
                }),
                None => Found::Missing(format!("{hop} does not answer on {interface}")),
            };
            found.insert(key.clone(), outcome);
        }
        Ok(found)
    }

    /// Has the kernel keep these stations, and no longer those that lead nowhere.
    async fn manage(&mut self, netlink: &Netlink, stations: &BTreeSet<Station>) {
        let idle = self.managed.iter();
        let idle: Vec<Station> = idle
            .filter(|station| !self.behind.contains_key(station))
            .copied()
            .collect();
        for station in idle {
            netlink.forget_neighbour(station.0, station.1).await;
            self.managed.remove(&station);
        }
        for (ifindex, address) in stations {
            if self.managed.contains(&(*ifindex, *address)) {
                continue;
            }
            match netlink.manage_neighbour(*ifindex, *address).await {
                Ok(()) => {
                    self.managed.insert((*ifindex, *address));
                }
                Err(error) => warn!("{error:#}"),
            }
        }
    }
}

/// The hardware addresses of stations, as far as they are known.
async fn addresses(
    netlink: &Netlink,
    all: bool,
    stations: &BTreeSet<Station>,
) -> Result<HashMap<Station, Mac>> {
    if all {
        return netlink.neighbours().await;
    }
    let mut known = HashMap::new();
    for (ifindex, address) in stations {
        if let Some(mac) = netlink.neighbour(*ifindex, *address).await? {
            known.insert((*ifindex, *address), mac);
        }
    }
    Ok(known)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_known_by_what_is_behind_it() {
        let mut ways = Ways::default();
        let key = |last: &str| -> BackendKey {
            let address = format!("10.1.0.{last}").parse().unwrap();
            ("provider/net".parse().unwrap(), address)
        };
        let router = (4, "10.1.0.1".parse().unwrap());
        ways.set(&key("10"), Some(router));
        ways.set(&key("11"), Some(router));
        ways.set(&key("12"), None);
        let behind = |ways: &Ways| ways.behind(&router).cloned().collect::<Vec<_>>();
        assert_eq!(behind(&ways), [key("10"), key("11")]);
        ways.set(&key("10"), Some((4, key("10").1)));
        assert_eq!(behind(&ways), [key("11")]);
        ways.forget(&key("11"));
        ways.forget(&key("12"));
        assert_eq!(behind(&ways), []);
        assert_eq!(ways.behind.len(), 1);
        assert_eq!(ways.known().collect::<Vec<_>>(), [&key("10")]);
    }
}
