//! Desired state into map contents. Pure: a function of the state, of what was observed of the host,
//! and of the contents as they are, from which places are kept so that nothing moves that need not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_common::{
    Be16, IpAddress,
    maps::{
        Address, AddressKey, Attachment, Backend, Egress, Limits, Link, MAGLEV_PLACES,
        MOST_ATTACHMENTS, MOST_BACKENDS, MOST_NAT_ADDRESSES, NO_LINK, NatAddress, Port, PortKey,
    },
    packet::Mac,
};

use crate::{
    dataplane::{
        backend_slots::BackendSlots,
        contents::Contents,
        maglev::{self, Candidate},
        mixed::Mixed,
        places::Places,
    },
    model::{
        ConnectionState, Endpoint, Name, Network, Record, Reference, Service, State,
        service::{NoBackend, NoFlow, PortNumber, Resource, SessionAffinity, UnhealthyFlows},
    },
};

/// What was observed of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces that can carry packets, by name: up, and with the program attached.
    pub interfaces: BTreeMap<String, Interface>,
    /// Where backends are, as far as their networks' stations answered.
    pub next_hops: HashMap<(Reference, IpAddr), NextHop>,
    /// Backends that fail their health checks: service, resource, address.
    pub unhealthy: BTreeSet<(Reference, Name, IpAddr)>,
    /// Endpoints' addresses, by network, of which it is not known yet that nobody else has them.
    pub tentative: BTreeSet<(Reference, IpAddr)>,
}

impl Observed {
    /// Whether the backend fails its health checks.
    #[must_use]
    pub fn is_unhealthy(&self, service: &Reference, resource: &Resource, address: IpAddr) -> bool {
        let key = (service.clone(), resource.name.clone(), address);
        !self.unhealthy.is_empty() && self.unhealthy.contains(&key)
    }
}

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub ifindex: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// The largest IP packet that it takes, in bytes.
    pub mtu: u32,
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface's name.
    pub interface: String,
    /// The hardware address of the backend, or of the router towards it.
    pub mac: Mac,
}

/// What could not be compiled, for want of room in a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {what} in map {map}: {most} places")]
pub struct NoRoom {
    what: String,
    map: &'static str,
    most: u32,
}

/// The contents that the maps should have, and what found no place in them.
#[must_use]
pub fn compile(state: &State, observed: &Observed, current: &Contents) -> (Contents, Vec<NoRoom>) {
    let mut compiler = Compiler {
        state,
        observed,
        current,
        contents: Contents::default(),
        no_room: Vec::new(),
        slots: HashMap::new(),
        mixed: Mixed::of(state),
    };
    compiler.networks();
    compiler.services();
    compiler.endpoints();
    (compiler.contents, compiler.no_room)
}

struct Compiler<'a> {
    state: &'a State,
    observed: &'a Observed,
    current: &'a Contents,
    contents: Contents,
    no_room: Vec<NoRoom>,
    /// The attachment slots, by interface.
    slots: HashMap<&'a str, u32>,
    mixed: Mixed<'a>,
}

/// Where a service's source NAT addresses are.
#[derive(Clone, Copy)]
struct NatRegion {
    offset: u32,
    size_v4: u32,
    size_v6: u32,
    /// Its IPv4 sources are used by flows of both families.
    shared: bool,
}

/// Whether the network drops what is for no endpoint.
#[must_use]
pub fn is_isolated(state: &State, reference: &Reference, network: &Network) -> bool {
    let services = state.services_of_network(reference).next().is_some();
    network.isolated.unwrap_or(!services)
}

impl<'a> Compiler<'a> {
    fn lacks(&mut self, what: String, map: &'static str, most: u32) {
        self.no_room.push(NoRoom { what, map, most });
    }

    fn networks(&mut self) {
        let wanted: Vec<(&'a Reference, &'a Record<Network>, &'a str, Interface)> = self
            .state
            .networks
            .iter()
            .flat_map(|(reference, record)| {
                record
                    .object
                    .attachments
                    .iter()
                    .map(move |a| (reference, record, &*a.interface))
            })
            .filter_map(|(reference, record, name)| {
                let interface = self.observed.interfaces.get(name)?;
                Some((reference, record, name, *interface))
            })
            .collect();
        // An interface of the same network keeps its slot: flows leave by it.
        let mut places = Places::new(MOST_ATTACHMENTS);
        let mut kept = HashMap::new();
        for (_, record, name, interface) in &wanted {
            if let Some(found) = self.current.attachments.get(&interface.ifindex)
                && found.network == record.object.number
                && places.take(found.slot, 1)
            {
                kept.insert(*name, found.slot);
            }
        }
        for (reference, record, name, interface) in wanted {
            let Some(slot) = kept.get(name).copied().or_else(|| places.find(1)) else {
                self.lacks(format!("interface {name}"), "EGRESS", MOST_ATTACHMENTS);
                continue;
            };
            self.attach(reference, record, interface, slot);
            self.slots.insert(name, slot);
        }
    }

    fn attach(
        &mut self,
        reference: &Reference,
        record: &Record<Network>,
        interface: Interface,
        slot: u32,
    ) {
        let network = &record.object;
        let services = self.state.services_of_network(reference).next().is_some();
        let mut flags = 0;
        if is_isolated(self.state, reference, network) {
            flags |= Attachment::ISOLATED;
        }
        if services {
            flags |= Attachment::PASS_NEIGHBOURS;
        }
        if self.mixed.networks.contains(reference) {
            flags |= Attachment::TRANSLATES;
        }
        let Interface { ifindex, mac, mtu } = interface;
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.contents.attachments.insert(
            ifindex,
            Attachment {
                ifindex,
                network: network.number,
                slot,
                mac,
                flags,
            },
        );
        self.contents.egress.insert(
            slot,
            Egress {
                network: network.number,
                mac,
                mtu: network.mtu.map_or(mtu, |limit| limit.min(mtu)),
            },
        );
        self.contents.devices.insert(slot, ifindex);
    }

    fn endpoints(&mut self) {
        for (reference, record) in &self.state.endpoints {
            let endpoint = &record.object;
            let connection = &endpoint.connection;
            let service = self
                .state
                .services
                .get(&endpoint.service_identity.reference);
            let resource = service
                .filter(|service| service.meta.uid == endpoint.service_identity.uid)
                .and_then(|service| service.object.resource_numbers.get(&endpoint.resource));
            // Approved by the record, and bound to something that is there.
            let resource = match connection.state {
                ConnectionState::Approved => resource.copied(),
                _ => None,
            };
            let generation = if resource.is_some() {
                connection.generation
            } else {
                0
            };
            let limits = service.map(|service| service.object.spec.limits().compiled());
            let limits = limits.unwrap_or_default();
            let limited = limits != Limits::default();
            if limited {
                self.contents.limits.insert(connection.slot, limits);
            }
            self.contents.links.insert(
                connection.slot,
                Link {
                    id: connection.link_id,
                    generation,
                    limited: u32::from(limited),
                },
            );
            let mut flags = 0;
            if resource.is_some() {
                flags |= Address::APPROVED;
            }
            if service.is_some_and(|service| service.object.spec.no_flow == NoFlow::Drop) {
                flags |= Address::SILENT;
            }
            let value = Address {
                kind: Address::ENDPOINT,
                flags,
                link: connection.slot,
                generation,
                resource: resource.unwrap_or(0),
            };
            self.addresses(reference, endpoint, value);
        }
    }

    /// What the endpoint's addresses are. One that may be another station's is only watched.
    fn addresses(&mut self, reference: &Reference, endpoint: &Endpoint, value: Address) {
        let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
        let Some(number) = self.state.networks.get(&network).map(|n| n.object.number) else {
            return;
        };
        for address in &endpoint.addresses {
            let key = AddressKey {
                network: number,
                address: IpAddress::from(*address),
            };
            let tentative = self
                .observed
                .tentative
                .contains(&(network.clone(), *address));
            let value = if tentative {
                Address {
                    kind: Address::TENTATIVE,
                    link: value.link,
                    ..Address::default()
                }
            } else {
                value
            };
            self.contents.addresses.insert(key, value);
        }
    }

    fn services(&mut self) {
        let mut nat_places = Places::new(MOST_NAT_ADDRESSES);
        let mut maglev_places = Places::new(MAGLEV_PLACES);
        // What is in use keeps its places until it is no longer in use: a packet on its way may
        // have read the old region's place already.
        for port in self.current.ports.values() {
            nat_places.take(port.nat_offset, port.nat_size_v4 + port.nat_size_v6);
            maglev_places.take(port.maglev_offset, port.maglev_size);
        }
        let mut slots = BackendSlots::new(self.state, self.observed, self.current);
        for (reference, record) in &self.state.services {
            let network =
                Reference::new(reference.tenant.clone(), record.object.spec.network.clone());
            let Some(found) = self.state.networks.get(&network) else {
                continue;
            };
            let number = found.object.number;
            let Some(nat) = self.nat_region(reference, record, number, &mut nat_places) else {
                continue;
            };
            for resource in &record.object.spec.resources {
                let Some(id) = record.object.resource_numbers.get(&resource.name) else {
                    continue;
                };
                let usable = self.backends(reference, record, resource, *id, &mut slots);
                let region = self.maglev_region(*id, &usable, &mut maglev_places);
                let Some(maglev) = region else {
                    let what = format!("the backends of {reference}, resource {}", resource.name);
                    self.lacks(what, "MAGLEV", MAGLEV_PLACES);
                    continue;
                };
                self.ports(record, resource, *id, number, nat, maglev);
            }
        }
        self.contents.backends.extend(slots.freed());
    }

    /// The service's source NAT addresses: answered for in its network, and listed in a region of
    /// their own, the one that it has if that is still right.
    fn nat_region(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        network: u32,
        places: &mut Places,
    ) -> Option<NatRegion> {
        let service = record.object.number;
        let mut list: Vec<NatAddress> = record
            .object
            .spec
            .nat_addresses
            .iter()
            .flat_map(|range| range.iter())
            .map(|address| NatAddress {
                address: IpAddress::from(address),
                service,
            })
            .collect();
        // Those of IPv4 come first: a port says how many there are of each.
        list.sort_by_key(|nat| nat.address.to_v4().is_none());
        let size = u32::try_from(list.len()).ok()?;
        let v4 = list
            .iter()
            .filter(|nat| nat.address.to_v4().is_some())
            .count();
        let size_v4 = u32::try_from(v4).ok()?;
        let size_v6 = size - size_v4;
        let current = record
            .object
            .resource_numbers
            .values()
            .find_map(|resource| {
                let port = first_port(self.current, *resource)?;
                let same = (port.nat_size_v4, port.nat_size_v6) == (size_v4, size_v6)
                    && (port.nat_offset..).zip(&list).all(|(place, address)| {
                        self.current.nat_addresses.get(&place) == Some(address)
                    });
                same.then_some(port.nat_offset)
            });
        let Some(offset) = current.or_else(|| places.find(size)) else {
            let what = format!("the source NAT addresses of {reference}");
            self.lacks(what, "NAT_ADDRESSES", MOST_NAT_ADDRESSES);
            return None;
        };
        for (place, address) in (offset..).zip(&list) {
            self.contents.nat_addresses.insert(place, *address);
            let key = AddressKey {
                network,
                address: address.address,
            };
            let value = Address {
                kind: Address::NAT,
                link: NO_LINK,
                ..Address::default()
            };
            self.contents.addresses.insert(key, value);
        }
        Some(NatRegion {
            offset,
            size_v4,
            size_v6,
            shared: self.mixed.services.contains(reference),
        })
    }

    /// The resource's backends get their slots; returned are those that can take new flows.
    fn backends(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        resource: &Resource,
        id: u32,
        slots: &mut BackendSlots,
    ) -> Vec<(Candidate, u32)> {
        let spec = &record.object.spec;
        let network = Reference::new(reference.tenant.clone(), spec.network.clone());
        let mut usable = Vec::new();
        for backend in &resource.backends {
            let unhealthy = self
                .observed
                .is_unhealthy(reference, resource, backend.address);
            if unhealthy && spec.health_check.unhealthy_flows == UnhealthyFlows::Reset {
                continue;
            }
            let hop = self
                .observed
                .next_hops
                .get(&(network.clone(), backend.address));
            let way = hop.and_then(|hop| Some((*self.slots.get(&*hop.interface)?, hop.mac)));
            let Some((slot, generation)) = slots.of(id, backend.address) else {
                self.lacks(
                    format!("backend {}", backend.address),
                    "BACKENDS",
                    MOST_BACKENDS,
                );
                continue;
            };
            let (egress, mac) = way.unwrap_or_default();
            let value = Backend {
                resource: id,
                generation,
                address: IpAddress::from(backend.address),
                egress,
                mac,
                reachable: u16::from(way.is_some()),
            };
            self.contents.backends.insert(slot, value);
            if way.is_some() && !unhealthy && !backend.drain && backend.weight > 0 {
                let candidate = Candidate {
                    address: backend.address,
                    weight: backend.weight,
                };
                usable.push((candidate, slot));
            }
        }
        usable
    }

    /// The resource's Maglev table, in the region that it has if that is still right.
    fn maglev_region(
        &mut self,
        resource: u32,
        usable: &[(Candidate, u32)],
        places: &mut Places,
    ) -> Option<(u32, u32)> {
        let candidates: Vec<Candidate> = usable.iter().map(|(candidate, _)| *candidate).collect();
        let table: Vec<u32> = maglev::table(&candidates)
            .into_iter()
            .map(|index| usable[index].1)
            .collect();
        let size = u32::try_from(table.len()).ok()?;
        if size == 0 {
            return Some((0, 0));
        }
        let current = first_port(self.current, resource).filter(|port| {
            port.maglev_size == size
                && (port.maglev_offset..)
                    .zip(&table)
                    .all(|(place, slot)| self.current.maglev.get(&place) == Some(slot))
        });
        let offset = current
            .map(|port| port.maglev_offset)
            .or_else(|| places.find(size))?;
        self.contents.maglev.extend((offset..).zip(table));
        Some((offset, size))
    }

    fn ports(
        &mut self,
        record: &Record<Service>,
        resource: &Resource,
        id: u32,
        network: u32,
        nat: NatRegion,
        (maglev_offset, maglev_size): (u32, u32),
    ) {
        let mut flags = 0;
        if record.object.spec.no_backend == NoBackend::Drop {
            flags |= Port::DROP_WITHOUT_BACKEND;
        }
        if record.object.spec.session_affinity == SessionAffinity::ClientAddress {
            flags |= Port::CLIENT_AFFINITY;
        }
        if nat.shared {
            flags |= Port::SHARES_SOURCES;
        }
        for port in &resource.ports {
            let number = match port.port {
                PortNumber::One(number) => number,
                PortNumber::Every => 0,
            };
            let key = PortKey {
                resource: id,
                port: Be16::new(number),
                protocol: u16::from(port.protocol.number()),
            };
            let value = Port {
                maglev_offset,
                maglev_size,
                nat_offset: nat.offset,
                nat_size_v4: nat.size_v4,
                nat_size_v6: nat.size_v6,
                network,
                service: record.object.number,
                // 0 keeps the client's port.
                backend_port: Be16::new(port.backend_port.unwrap_or(number)),
                flags,
            };
            self.contents.ports.insert(key, value);
        }
    }
}

/// Any port of the resource: they all name the same regions.
fn first_port(contents: &Contents, resource: u32) -> Option<&Port> {
    let from = PortKey {
        resource,
        ..PortKey::default()
    };
    let (key, port) = contents.ports.range(from..).next()?;
    (key.resource == resource).then_some(port)
}
