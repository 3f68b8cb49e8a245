//! What of the host is to be looked at again: what a change, or the kernel's news, concern, and no
//! more. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    agent::ways::Ways,
    dataplane::observed::{BackendKey, Observed},
    model::{Change, Object, Reference, State},
    netlink::News,
};

/// More than this is looked at by looking at everything: the kernel lists all for less than it tells
/// of each.
const MOST: usize = 1_000;

/// What of the host is to be looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    everything: bool,
    /// Interfaces, with the backends behind them.
    links: BTreeSet<String>,
    /// Networks whose interfaces must receive what is for groups: neighbour solicitations.
    groups: BTreeSet<Reference>,
    backends: BTreeSet<BackendKey>,
    /// Stations that backends may be, or be behind: interface number and address.
    stations: BTreeSet<(u32, IpAddr)>,
}

impl Sight {
    /// The whole host.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Whether there is nothing to be looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// And this.
    pub fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.links.extend(other.links);
        self.groups.extend(other.groups);
        self.backends.extend(other.backends);
        self.stations.extend(other.stations);
    }

    /// And what the kernel tells of, which was seen as this before.
    pub fn add_news(&mut self, news: News, seen: &Observed) {
        self.everything |= news.everything;
        for (name, ifindex) in news.links {
            // One that has another name now is to be looked for by the old one as well.
            let before = seen.interfaces.iter();
            let before = before.filter(|(_, interface)| interface.ifindex == ifindex);
            self.links.extend(before.map(|(name, _)| name.clone()));
            self.links.insert(name);
        }
        self.stations.extend(news.stations);
    }

    /// And what changes of the state concern, which is as it was before them.
    pub fn add_changes(&mut self, before: &State, changes: &[Change]) {
        for change in changes {
            let object = change.object();
            let reference = object.reference();
            match object {
                Object::Network(_, record) => {
                    let old = before.networks.get(&reference).into_iter();
                    let both = old.chain([record]);
                    let attachments = both.flat_map(|record| &record.object.attachments);
                    self.links
                        .extend(attachments.map(|attachment| attachment.interface.clone()));
                }
                Object::Service(_, record) => {
                    let old = before.services.get(&reference).into_iter();
                    for record in old.chain([record]) {
                        let spec = &record.object.spec;
                        let network = spec.network.clone();
                        let network = Reference::new(reference.tenant.clone(), network);
                        let resources = spec.resources.iter();
                        for backend in resources.flat_map(|resource| &resource.backends) {
                            self.backends.insert((network.clone(), backend.address));
                        }
                        if spec.has_ipv6() {
                            self.groups.insert(network);
                        }
                    }
                }
                Object::Endpoint(_, record) => {
                    let ipv6 = record.object.addresses.iter().any(IpAddr::is_ipv6);
                    if ipv6 && !before.endpoints.contains_key(&reference) {
                        let network = record.object.network.clone();
                        self.groups
                            .insert(Reference::new(reference.tenant.clone(), network));
                    }
                }
                Object::Tenant(_)
                | Object::Token(..)
                | Object::Identity(..)
                | Object::Webhook(..) => {}
            }
        }
    }
}

/// What is looked at, and what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether that is all that there is.
    pub everything: bool,
    /// Interfaces, and the networks that they are attached to now, if any.
    pub links: BTreeMap<String, Option<Reference>>,
    /// Interfaces that must receive what is for groups.
    pub groups: BTreeSet<String>,
    /// Backends, and the interfaces of their networks. With none, it is nobody's backend any more.
    pub backends: BTreeMap<BackendKey, Vec<String>>,
}

impl Wanted {
    /// What this sight comes to, as things are now.
    #[must_use]
    pub fn of(sight: &Sight, state: &State, ways: &Ways) -> Self {
        let items = sight.links.len() + sight.backends.len() + sight.stations.len();
        if sight.everything || items > MOST {
            return Self::everything(state, ways);
        }
        let mut wanted = Self::default();
        let mut backends = sight.backends.clone();
        for name in &sight.links {
            let network = state.network_of_interface(name);
            if let Some(network) = network {
                backends.extend(backends_of(state, network));
            }
            wanted.links.insert(name.clone(), network.cloned());
        }
        for station in &sight.stations {
            backends.extend(ways.behind(station).cloned());
        }
        let networks: BTreeSet<&Reference> = backends.iter().map(|(network, _)| network).collect();
        let in_use: BTreeSet<BackendKey> = networks
            .into_iter()
            .flat_map(|network| backends_of(state, network))
            .filter(|key| backends.contains(key))
            .collect();
        for key in backends {
            let names = if in_use.contains(&key) {
                interfaces(state, &key.0)
            } else {
                Vec::new()
            };
            wanted.backends.insert(key, names);
        }
        let linked = wanted.links.values().flatten();
        let linked = linked.filter(|network| state.has_ipv6(network));
        for network in linked.chain(&sight.groups) {
            wanted.groups.extend(interfaces(state, network));
        }
        wanted
    }

    fn everything(state: &State, ways: &Ways) -> Self {
        let mut wanted = Self {
            everything: true,
            ..Self::default()
        };
        for (name, network) in state.interfaces() {
            wanted.links.insert(name.clone(), Some(network.clone()));
            if state.has_ipv6(network) {
                wanted.groups.insert(name.clone());
            }
        }
        for key in ways.known() {
            wanted.backends.insert(key.clone(), Vec::new());
        }
        for network in state.networks.keys() {
            let names = interfaces(state, network);
            let backends = backends_of(state, network);
            wanted
                .backends
                .extend(backends.map(|key| (key, names.clone())));
        }
        wanted
    }
}

/// The backends of the network's services.
fn backends_of<'a>(
    state: &'a State,
    network: &'a Reference,
) -> impl Iterator<Item = BackendKey> + 'a {
    state
        .services_of_network(network)
        .flat_map(|(_, record)| &record.object.spec.resources)
        .flat_map(|resource| &resource.backends)
        .map(|backend| (network.clone(), backend.address))
}

/// The network's interfaces.
fn interfaces(state: &State, network: &Reference) -> Vec<String> {
    let found = state.networks.get(network).into_iter();
    let attachments = found.flat_map(|record| &record.object.attachments);
    attachments.map(|a| a.interface.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{dataplane::observed::Interface, model::operations::tests::World};

    fn key(address: &str) -> BackendKey {
        ("provider/net".parse().unwrap(), address.parse().unwrap())
    }

    /// What the last change made is to be looked at for.
    fn wanted_after(world: &World) -> Wanted {
        let (before, changes) = &world.last;
        let mut sight = Sight::default();
        sight.add_changes(before, changes);
        Wanted::of(&sight, &world.state, &Ways::default())
    }

    fn world_has(world: &World, key: &BackendKey) -> bool {
        backends_of(&world.state, &key.0).any(|other| other == *key)
    }

    #[test]
    fn a_service_has_its_own_backends_looked_for_and_those_that_it_gave_up() {
        let mut world = World::furnished();
        let spec = json!({
            "resources": [{
                "ports": [{ "port": 443 }],
                "backends": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
            }],
        });
        world.replace_service("provider/shop", spec).unwrap();
        let wanted = wanted_after(&world);
        assert!(!wanted.everything && wanted.links.is_empty());
        for address in ["10.1.0.11", "10.1.0.12"] {
            assert_eq!(wanted.backends[&key(address)], ["veth-p"], "{address}");
        }
        let (before, _) = &world.last;
        let network = key("10.1.0.11").0;
        let mut given_up: Vec<_> = backends_of(before, &network).collect();
        given_up.retain(|key| !world_has(&world, key));
        assert!(!given_up.is_empty());
        for key in given_up {
            assert_eq!(wanted.backends[&key], Vec::<String>::new(), "{key:?}");
        }
    }

    #[test]
    fn an_endpoint_concerns_the_host_only_if_it_is_reached_through_groups() {
        let mut world = World::furnished();
        world
            .endpoint("consumer/a", "10.0.0.101", "provider/shop")
            .unwrap();
        assert_eq!(wanted_after(&world), Wanted::default());
        let v6 = json!({ "addresses": ["fd00::7"], "service": "provider/shop" });
        world.endpoint_with("consumer/six", v6).unwrap();
        let wanted = wanted_after(&world);
        assert_eq!(wanted.groups, BTreeSet::from(["veth-c".to_owned()]));
        assert!(wanted.links.is_empty() && wanted.backends.is_empty());
    }

    #[test]
    fn of_news_only_what_is_in_use_is_looked_at() {
        let world = World::furnished();
        let mut ways = Ways::default();
        let backend = key("10.1.0.10");
        let station = (4, "10.1.0.1".parse().unwrap());
        ways.set(&backend, Some(station));
        let mut sight = Sight::default();
        let news = News {
            everything: false,
            links: BTreeSet::from([("lo".to_owned(), 1)]),
            stations: BTreeSet::from([station, (4, "10.1.0.77".parse().unwrap())]),
        };
        sight.add_news(news, &Observed::default());
        let wanted = Wanted::of(&sight, &world.state, &ways);
        assert_eq!(wanted.backends.len(), 1);
        assert_eq!(wanted.backends[&backend], ["veth-p"]);
        assert_eq!(wanted.links, BTreeMap::from([("lo".to_owned(), None)]));
        // It was seen by another name.
        let mut seen = Observed::default();
        let interface = Interface {
            ifindex: 4,
            mac: gateway_common::packet::Mac::new([2, 0, 0, 0, 0, 4]),
            mtu: 1_500,
        };
        seen.interfaces.insert("veth-p".to_owned(), interface);
        let news = News {
            links: BTreeSet::from([("renamed".to_owned(), 4)]),
            ..News::default()
        };
        sight.add_news(news, &seen);
        let wanted = Wanted::of(&sight, &world.state, &ways);
        assert!(wanted.backends.contains_key(&backend));
        assert_eq!(wanted.links["renamed"], None);
        assert_eq!(
            wanted.links["veth-p"],
            Some("provider/net".parse().unwrap())
        );
    }

    #[test]
    fn too_much_to_ask_for_one_by_one_is_everything() {
        let world = World::furnished();
        let mut sight = Sight::default();
        for number in 0..=u32::try_from(MOST).unwrap() {
            sight.links.insert(format!("x{number}"));
        }
        assert!(Wanted::of(&sight, &world.state, &Ways::default()).everything);
        assert!(!sight.is_empty() && Sight::default().is_empty());
    }
}
