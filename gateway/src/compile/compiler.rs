//! Compilation of desired and observed state into map contents. Pure.
//!
//! The present contents are an input as well: slots and ranges that are in use are kept, so that a change moves no
//! more entries than necessary.

use std::net::IpAddr;

use gateway_common::{
    Be16, IpAddress,
    maps::{
        AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, MAX_ATTACHMENTS,
        MAX_BACKENDS, MAX_MAGLEV_ENTRIES, MAX_NAT_ADDRESSES, NO_CONNECTION, NatAddress, Port,
        PortKey,
    },
};

use crate::{
    compile::{
        compile_cache::{CompileCache, EntryKey, ObjectId},
        maglev::{self, Candidate},
        map_snapshot::MapSnapshot,
        observed::{Interface, Observed},
    },
    model::{
        ConnectionState, Endpoint, Network, Record, Reference, Service, State,
        service::{
            NoBackendAction, PortNumber, Resource, SessionAffinity, UnhealthyFlowAction,
            UnmatchedPacketAction,
        },
    },
};

/// Part of an object that is missing in the data path because a map is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "map {map} is full, no room for {what}: remove unused objects, the map holds {most} entries"
)]
pub struct CapacityError {
    what: String,
    map: &'static str,
    most: u32,
}

/// Compiles the whole state: returns the contents that the maps should have, and what they have no room for.
#[must_use]
pub fn compile(
    state: &State,
    observed: &Observed,
    current: &MapSnapshot,
) -> (MapSnapshot, Vec<CapacityError>) {
    let mut cache = CompileCache::default();
    let delta = cache.rebuild(state, observed, current);
    (delta.new, cache.capacity_errors().cloned().collect())
}

/// Compiler of objects, one by one, into a snapshot.
pub(super) struct Compiler<'a> {
    state: &'a State,
    observed: &'a Observed,
    current: &'a MapSnapshot,
    cache: &'a mut CompileCache,
    snapshot: MapSnapshot,
    /// Errors of the object that is being compiled.
    capacity_errors: Vec<CapacityError>,
    /// Map entries of the object that is being compiled.
    keys: Vec<EntryKey>,
}

/// Range of a service's SNAT addresses in the array of all SNAT addresses.
#[derive(Clone, Copy)]
struct NatRegion {
    offset: u32,
    size_v4: u32,
    size_v6: u32,
    /// True if IPv4 consumers and, through NAT64, IPv6 consumers use the same IPv4 addresses.
    shared: bool,
}

/// Returns true if the network drops packets whose destination is not an endpoint.
#[must_use]
pub fn is_isolated(state: &State, reference: &Reference, network: &Network) -> bool {
    let services = state.services_of_network(reference).next().is_some();
    network.isolated.unwrap_or(!services)
}

impl<'a> Compiler<'a> {
    pub(super) fn new(
        state: &'a State,
        observed: &'a Observed,
        current: &'a MapSnapshot,
        cache: &'a mut CompileCache,
    ) -> Self {
        Self {
            state,
            observed,
            current,
            cache,
            snapshot: MapSnapshot::default(),
            capacity_errors: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Returns the compiled contents.
    pub(super) fn into_snapshot(self) -> MapSnapshot {
        self.snapshot
    }

    fn report_full(&mut self, what: String, map: &'static str, most: u32) {
        self.capacity_errors.push(CapacityError { what, map, most });
    }

    /// Records the entries and the errors of the object that was compiled last.
    pub(super) fn finish_object(&mut self, owner: ObjectId) {
        let errors = std::mem::take(&mut self.capacity_errors);
        if errors.is_empty() {
            self.cache.capacity_errors.remove(&owner);
        } else {
            self.cache.capacity_errors.insert(owner.clone(), errors);
        }
        let keys = std::mem::take(&mut self.keys);
        self.cache.pending.push((owner, keys));
    }

    pub(super) fn network(&mut self, reference: &Reference, record: &Record<Network>) {
        for attachment in &record.object.attachments {
            let name = &*attachment.interface;
            let Some(interface) = self.observed.interfaces.get(name).copied() else {
                continue;
            };
            // An interface that stays in its network keeps its slot, because flow entries refer to it.
            let current = self.current.attachments.get(&interface.ifindex);
            let unchanged = current.filter(|attachment| attachment.network == record.object.number);
            let slot = match unchanged {
                Some(attachment) => Some(attachment.slot),
                None => self.cache.attachments.allocate(1),
            };
            let Some(slot) = slot else {
                self.report_full(format!("interface {name}"), "EGRESS", MAX_ATTACHMENTS);
                continue;
            };
            self.attach(reference, record, interface, slot);
        }
    }

    /// Returns the slot of an attached interface.
    fn attachment_slot(&self, interface: &str) -> Option<u32> {
        let ifindex = self.observed.interfaces.get(interface)?.ifindex;
        let planned = self.snapshot.attachments.get(&ifindex);
        let attachment = planned.or_else(|| self.current.attachments.get(&ifindex))?;
        Some(attachment.slot)
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
            flags |= Attachment::PASS_ARP_ND;
        }
        if self.cache.nat46_usage.needs_nat46(reference) {
            flags |= Attachment::NAT46;
        }
        let Interface { ifindex, mac, mtu } = interface;
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.snapshot.attachments.insert(
            ifindex,
            Attachment {
                ifindex,
                network: network.number,
                slot,
                flags,
                mac: mac.into(),
            },
        );
        self.snapshot.egress.insert(
            slot,
            Egress {
                network: network.number,
                mtu: network.mtu.map_or(mtu, |limit| limit.min(mtu)),
                mac: mac.into(),
                ..Egress::default()
            },
        );
        self.snapshot.tx_ports.insert(slot, ifindex);
        self.keys
            .extend([EntryKey::Attachment(ifindex), EntryKey::Egress(slot)]);
    }

    pub(super) fn endpoint(&mut self, reference: &Reference, record: &Record<Endpoint>) {
        let endpoint = &record.object;
        let connection = &endpoint.connection;
        let service = self
            .state
            .services
            .get(&endpoint.service_identity.reference);
        let resource = service
            .filter(|service| service.meta.uid == endpoint.service_identity.uid)
            .and_then(|service| service.object.resource_numbers.get(&endpoint.resource));
        // The connection carries traffic only if it is approved and its resource still exists.
        let resource = match connection.state {
            ConnectionState::Approved => resource.copied(),
            _ => None,
        };
        let generation = if resource.is_some() {
            connection.generation
        } else {
            0
        };
        let limits = service.map(|service| service.object.spec.limits().to_map_limits());
        let limits = limits.unwrap_or_default();
        let limited = limits != Limits::default();
        if limited {
            self.snapshot.limits.insert(connection.slot, limits);
        }
        self.snapshot.connections.insert(
            connection.slot,
            Connection {
                id: connection.link_id,
                generation,
                has_limits: u32::from(limited),
            },
        );
        let mut flags = 0;
        if resource.is_some() {
            flags |= LocalAddress::APPROVED;
        }
        if service.is_some_and(|service| {
            service.object.spec.unmatched_packet_action == UnmatchedPacketAction::Drop
        }) {
            flags |= LocalAddress::DROP_UNMATCHED;
        }
        let value = LocalAddress {
            kind: LocalAddress::ENDPOINT,
            flags,
            connection_slot: connection.slot,
            generation,
            resource: resource.unwrap_or(0),
        };
        self.addresses(reference, endpoint, value);
        self.keys.push(EntryKey::Connection(connection.slot));
    }

    /// Compiles the endpoint's addresses. An address that another host may have is tentative: conflicts about it are
    /// detected, but the gateway does not answer for it yet.
    fn addresses(&mut self, reference: &Reference, endpoint: &Endpoint, value: LocalAddress) {
        let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
        let Some(network_record) = self.state.networks.get(&network) else {
            return;
        };
        let number = network_record.object.number;
        for address in &endpoint.addresses {
            if self.is_host_address(&network, &network_record.object, *address) {
                continue;
            }
            let key = AddressKey {
                network: number,
                address: IpAddress::from(*address),
            };
            let tentative = self
                .observed
                .tentative
                .contains(&(network.clone(), *address));
            let value = if tentative {
                LocalAddress {
                    kind: LocalAddress::TENTATIVE,
                    connection_slot: value.connection_slot,
                    ..LocalAddress::default()
                }
            } else {
                value
            };
            self.snapshot.addresses.insert(key, value);
            self.keys.push(EntryKey::Address(key));
        }
    }

    /// Returns true if the host itself has the address in the network. The address stays the host's then.
    fn is_host_address(&self, reference: &Reference, network: &Network, address: IpAddr) -> bool {
        let host = &self.observed.host;
        host.contains(address)
            && host
                .conflict(self.state, reference, network, address)
                .is_some()
    }

    pub(super) fn service(&mut self, reference: &Reference, record: &Record<Service>) {
        let network = Reference::new(reference.tenant.clone(), record.object.spec.network.clone());
        let Some(network_record) = self.state.networks.get(&network) else {
            return;
        };
        let number = network_record.object.number;
        let Some(nat) = self.nat_region(reference, record, (&network, &network_record.object))
        else {
            return;
        };
        for resource in &record.object.spec.resources {
            let Some(id) = record.object.resource_numbers.get(&resource.name) else {
                continue;
            };
            let usable = self.backends(reference, record, resource, *id);
            let Some(maglev) = self.maglev_region(*id, &usable) else {
                let what = format!("the backends of {reference}, resource {}", resource.name);
                self.report_full(what, "MAGLEV", MAX_MAGLEV_ENTRIES);
                continue;
            };
            self.ports(record, resource, *id, number, nat, maglev);
        }
    }

    /// Compiles the service's SNAT addresses: local addresses in the service's network, and a range of the SNAT array.
    /// The present range is kept if its contents are still correct.
    fn nat_region(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        (network_reference, network): (&Reference, &Network),
    ) -> Option<NatRegion> {
        let service = record.object.number;
        let mut list: Vec<NatAddress> = record
            .object
            .spec
            .nat_addresses
            .iter()
            .flat_map(|range| range.iter())
            .filter(|address| !self.is_host_address(network_reference, network, *address))
            .map(|address| NatAddress {
                address: IpAddress::from(address),
                service,
            })
            .collect();
        // IPv4 addresses come first, because a port holds only the number of addresses of each family.
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
                    && (port.nat_offset..).zip(&list).all(|(index, address)| {
                        self.current.nat_addresses.get(&index) == Some(address)
                    });
                same.then_some(port.nat_offset)
            });
        let Some(offset) = current.or_else(|| self.cache.nat.allocate(size)) else {
            let what = format!("the SNAT addresses of {reference}");
            self.report_full(what, "NAT_ADDRESSES", MAX_NAT_ADDRESSES);
            return None;
        };
        for (index, address) in (offset..).zip(&list) {
            self.snapshot.nat_addresses.insert(index, *address);
            let key = AddressKey {
                network: network.number,
                address: address.address,
            };
            let value = LocalAddress {
                kind: LocalAddress::NAT,
                connection_slot: NO_CONNECTION,
                ..LocalAddress::default()
            };
            self.snapshot.addresses.insert(key, value);
            self.keys.push(EntryKey::Address(key));
        }
        self.keys.push(EntryKey::Nat(offset, size));
        Some(NatRegion {
            offset,
            size_v4,
            size_v6,
            shared: self.cache.nat46_usage.shares_snat_pool(reference),
        })
    }

    /// Compiles the resource's backends, and returns those that can take new flows with their slots.
    fn backends(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        resource: &Resource,
        id: u32,
    ) -> Vec<(Candidate, u32)> {
        let spec = &record.object.spec;
        let network = Reference::new(reference.tenant.clone(), spec.network.clone());
        let mut usable = Vec::new();
        for backend in &resource.backends {
            let unhealthy = self
                .observed
                .is_unhealthy(reference, resource, backend.address);
            if unhealthy && spec.health_check.unhealthy_flow_action == UnhealthyFlowAction::Reset {
                continue;
            }
            let hop = self
                .observed
                .next_hops
                .get(&(network.clone(), backend.address));
            let next_hop =
                hop.and_then(|hop| Some((self.attachment_slot(&hop.interface)?, hop.mac)));
            let owner = (id, backend.address);
            let Some((slot, generation)) = self.cache.backends.get_or_allocate(owner) else {
                self.report_full(
                    format!("backend {}", backend.address),
                    "BACKENDS",
                    MAX_BACKENDS,
                );
                continue;
            };
            let (egress, mac) = next_hop.unwrap_or_default();
            let value = Backend {
                resource: id,
                generation,
                address: IpAddress::from(backend.address),
                egress_slot: egress,
                reachable: next_hop.is_some().into(),
                mac: mac.into(),
            };
            self.snapshot.backends.insert(slot, value);
            self.keys.push(EntryKey::Backend(slot));
            if next_hop.is_some() && !unhealthy && !backend.drain && backend.weight > 0 {
                let candidate = Candidate {
                    address: backend.address,
                    weight: backend.weight,
                };
                usable.push((candidate, slot));
            }
        }
        usable
    }

    /// Compiles the resource's Maglev table. The present range is kept if its contents are still correct.
    fn maglev_region(&mut self, resource: u32, usable: &[(Candidate, u32)]) -> Option<(u32, u32)> {
        let candidates: Vec<Candidate> = usable.iter().map(|(candidate, _)| *candidate).collect();
        let table: Vec<u32> = maglev::build_table(&candidates)
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
                    .all(|(index, slot)| self.current.maglev.get(&index) == Some(slot))
        });
        let offset = current
            .map(|port| port.maglev_offset)
            .or_else(|| self.cache.maglev.allocate(size))?;
        self.snapshot.maglev.extend((offset..).zip(table));
        self.keys.push(EntryKey::Maglev(offset, size));
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
        if record.object.spec.no_backend_action == NoBackendAction::Drop {
            flags |= Port::DROP_IF_NO_BACKEND;
        }
        if record.object.spec.session_affinity == SessionAffinity::ClientAddress {
            flags |= Port::CLIENT_AFFINITY;
        }
        if nat.shared {
            flags |= Port::SHARED_SNAT_POOL;
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
                // Port 0 stands for every port: the data path keeps the client's destination port.
                backend_port: Be16::new(port.backend_port.unwrap_or(number)),
                flags,
            };
            self.snapshot.ports.insert(key, value);
            self.keys.push(EntryKey::Port(key));
        }
    }
}

/// Returns one port of the resource, since all of them name the same ranges.
fn first_port(snapshot: &MapSnapshot, resource: u32) -> Option<&Port> {
    let from = PortKey {
        resource,
        ..PortKey::default()
    };
    let (key, port) = snapshot.ports.range(from..).next()?;
    (key.resource == resource).then_some(port)
}
