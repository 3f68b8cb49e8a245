//! Routes to backends: the interface and the next hop that lead to each, as the kernel's routing table has them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use log::info;

use crate::{
    compile::observed::BackendKey,
    neighbour::Neighbour,
    netlink::{KernelNeighbour, Link, Netlink},
};

/// Route to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendRoute {
    /// Packets leave by this interface to this next hop.
    Via {
        /// Name of the interface.
        interface: String,
        /// Next hop: the backend itself, or a router.
        next_hop: Neighbour,
        /// The kernel's entry of the next hop, if it has one.
        kernel: Option<KernelNeighbour>,
    },
    /// The backend can't be reached, for the reason in the text.
    Unreachable(String),
    /// No service has the backend any more.
    Unused,
}

/// Finds the routes to backends, which are given with their networks' interfaces; a backend without any is unused.
/// `all` states that there are no other backends.
///
/// # Errors
/// When a netlink request fails.
pub(super) async fn find_routes(
    netlink: &Netlink,
    backends: &BTreeMap<BackendKey, Vec<String>>,
    all: bool,
    links: &BTreeMap<String, Link>,
) -> Result<BTreeMap<BackendKey, BackendRoute>> {
    let mut routes = BTreeMap::new();
    let mut next_hops = BTreeSet::new();
    for (key, interfaces) in backends {
        let (_, address) = key;
        if interfaces.is_empty() {
            routes.insert(key.clone(), BackendRoute::Unused);
            continue;
        }
        let up = interfaces.iter().filter_map(|name| links.get(name));
        let up: Vec<&Link> = up.filter(|link| link.up).collect();
        let Some(link) = select_interface(netlink, &up, *address).await else {
            let missing =
                "the interface of its network is missing, down or without carrier".to_owned();
            routes.insert(key.clone(), BackendRoute::Unreachable(missing));
            continue;
        };
        let next_hop = (
            link.ifindex,
            netlink.next_hop(link.ifindex, *address).await?,
        );
        next_hops.insert(next_hop);
        let route = BackendRoute::Via {
            interface: link.name.clone(),
            next_hop,
            kernel: None,
        };
        routes.insert(key.clone(), route);
    }
    let known = kernel_neighbours(netlink, all, &next_hops).await?;
    for route in routes.values_mut() {
        if let BackendRoute::Via {
            next_hop, kernel, ..
        } = route
        {
            *kernel = known.get(next_hop).copied();
        }
    }
    Ok(routes)
}

/// Removes the managed entries of next hops from the kernel's neighbour table: earlier versions of the agent added them
/// and relied on the kernel, which would go on resolving them for ever.
pub(super) async fn remove_managed_neighbours(
    netlink: &Netlink,
    routes: &BTreeMap<BackendKey, BackendRoute>,
) {
    let mut removed = BTreeSet::new();
    for route in routes.values() {
        if let BackendRoute::Via {
            next_hop,
            kernel: Some(kernel),
            ..
        } = route
            && kernel.is_managed
            && removed.insert(*next_hop)
        {
            let (ifindex, address) = next_hop;
            netlink.delete_neighbour(*ifindex, *address).await;
        }
    }
    if !removed.is_empty() {
        info!(
            "host: managed neighbour entries of an earlier version removed count={}",
            removed.len()
        );
    }
}

/// Returns the kernel's entries of neighbours.
async fn kernel_neighbours(
    netlink: &Netlink,
    all: bool,
    neighbours: &BTreeSet<Neighbour>,
) -> Result<HashMap<Neighbour, KernelNeighbour>> {
    if all {
        return netlink.neighbours().await;
    }
    let mut known = HashMap::new();
    for (ifindex, address) in neighbours {
        if let Some(entry) = netlink.neighbour(*ifindex, *address).await? {
            known.insert((*ifindex, *address), entry);
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
