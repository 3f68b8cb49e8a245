//! Host dirty set: the interfaces, backends and neighbours to be scanned again after a configuration change or a
//! netlink event. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    compile::observed::{BackendKey, Observed},
    model::{Change, Object, Reference, State},
    netlink::HostEvents,
};

/// Parts of the host that are to be scanned again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDirtySet {
    pub(super) all: bool,
    /// Interfaces, and with them the backends of their networks.
    pub(super) links: BTreeSet<String>,
    /// Networks whose interfaces must receive multicast, which neighbour solicitations are sent to.
    pub(super) multicast_networks: BTreeSet<Reference>,
    pub(super) backends: BTreeSet<BackendKey>,
    /// Neighbours that may be backends or their next hops: interface number and address.
    pub(super) neighbours: BTreeSet<(u32, IpAddr)>,
}

impl HostDirtySet {
    /// Returns the set of the whole host.
    #[must_use]
    pub fn resync_all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Returns true if there is nothing to scan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another set.
    pub fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.links.extend(other.links);
        self.multicast_networks.extend(other.multicast_networks);
        self.backends.extend(other.backends);
        self.neighbours.extend(other.neighbours);
    }

    /// Adds what netlink events concern. `observed` gives the former names of interfaces.
    pub fn add_events(&mut self, events: HostEvents, observed: &Observed) {
        self.all |= events.resync_all;
        for (name, ifindex) in events.links {
            // A renamed interface is scanned by its former name as well.
            let before = observed.interfaces.iter();
            let before = before.filter(|(_, interface)| interface.ifindex == ifindex);
            self.links.extend(before.map(|(name, _)| name.clone()));
            self.links.insert(name);
        }
        self.neighbours.extend(events.neighbours);
    }

    /// Adds what changes of the desired state concern. `before` is the state without them.
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
                            self.multicast_networks.insert(network);
                        }
                    }
                }
                Object::Endpoint(_, record) => {
                    let ipv6 = record.object.addresses.iter().any(IpAddr::is_ipv6);
                    let old = before.endpoints.get(&reference);
                    let is_new =
                        old.is_none_or(|old| old.object.addresses != record.object.addresses);
                    if ipv6 && is_new {
                        let network = record.object.network.clone();
                        self.multicast_networks
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
