//! Compilation of services: ports, SNAT addresses, backends and Maglev tables. Pure.

use std::collections::HashSet;

use gateway_common::{
    Be16, IpAddress,
    maps::{
        AddressKey, Backend, LocalAddress, MAX_BACKENDS, MAX_MAGLEV_ENTRIES, MAX_NAT_ADDRESSES,
        NO_CONNECTION, NatAddress, Port, PortKey, name,
    },
};

use crate::{
    compile::{
        compile_cache::EntryKey,
        compiler::Compiler,
        maglev::{self, Candidate},
        map_snapshot::MapSnapshot,
    },
    model::{
        Network, Record, Reference, Service,
        service::{NoBackendAction, PortNumber, Resource, SessionAffinity, UnhealthyFlowAction},
    },
};

/// Range of a service's SNAT addresses in the array of all SNAT addresses.
#[derive(Clone, Copy)]
struct SnatRange {
    offset: u32,
    size_v4: u32,
    size_v6: u32,
    /// True if IPv4 consumers and, through NAT64, IPv6 consumers use the same IPv4 addresses.
    shared: bool,
}

impl Compiler<'_> {
    /// Compiles the SNAT addresses and the resources of a service.
    pub(super) fn compile_service(&mut self, reference: &Reference, record: &Record<Service>) {
        let network = Reference::new(reference.tenant.clone(), record.object.spec.network.clone());
        let Some(network_record) = self.state.networks.get(&network) else {
            return;
        };
        let number = network_record.object.number;
        let Some(nat) =
            self.compile_snat_range(reference, record, (&network, &network_record.object))
        else {
            return;
        };
        for resource in &record.object.spec.resources {
            let Some(id) = record.object.resource_numbers.get(&resource.name) else {
                continue;
            };
            let usable = self.compile_backends(reference, record, resource, *id, number);
            let Some(maglev) = self.compile_maglev_table(*id, &usable) else {
                let part = format!("the backends of {reference}, resource {}", resource.name);
                self.report_full(part, name::MAGLEV, MAX_MAGLEV_ENTRIES);
                continue;
            };
            self.compile_ports(record, resource, *id, number, nat, maglev);
        }
    }

    /// Compiles the service's SNAT addresses: local addresses in the service's network, and a range of the SNAT array.
    /// The present range is kept if its contents are still correct.
    ///
    /// An address that another host may have is tentative, and not in the array: flows get the other addresses.
    fn compile_snat_range(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        (network_reference, network): (&Reference, &Network),
    ) -> Option<SnatRange> {
        let service = record.object.number;
        let mut list = Vec::new();
        let ranges = record.object.spec.nat_addresses.iter();
        for address in ranges.flat_map(|range| range.iter()) {
            if self.is_host_address(network_reference, network, address) {
                continue;
            }
            let is_tentative = self.is_tentative(network_reference, address);
            let address = IpAddress::from(address);
            if is_tentative {
                self.add_nat_address(network.number, address, LocalAddress::TENTATIVE);
            } else {
                list.push(NatAddress { address, service });
            }
        }
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
                let port = find_port(self.current, *resource)?;
                let same = (port.nat_size_v4, port.nat_size_v6) == (size_v4, size_v6)
                    && (port.nat_offset..).zip(&list).all(|(index, address)| {
                        self.current.nat_addresses.get(&index) == Some(address)
                    });
                same.then_some(port.nat_offset)
            });
        let Some(offset) = current.or_else(|| self.cache.nat.allocate(size)) else {
            let part = format!("the SNAT addresses of {reference}");
            self.report_full(part, name::NAT_ADDRESSES, MAX_NAT_ADDRESSES);
            return None;
        };
        for (index, address) in (offset..).zip(&list) {
            self.snapshot.nat_addresses.insert(index, *address);
            self.add_nat_address(network.number, address.address, LocalAddress::NAT);
        }
        self.keys.push(EntryKey::Nat(offset, size));
        Some(SnatRange {
            offset,
            size_v4,
            size_v6,
            shared: self.cache.nat46_usage.shares_snat_pool(reference),
        })
    }

    /// Compiles a SNAT address as a local address of its network.
    fn add_nat_address(&mut self, network: u32, address: IpAddress, kind: u16) {
        let key = AddressKey { network, address };
        let value = LocalAddress {
            kind,
            connection_slot: NO_CONNECTION,
            ..LocalAddress::default()
        };
        self.snapshot.addresses.insert(key, value);
        self.keys.push(EntryKey::Address(key));
    }

    /// Compiles the resource's backends, and returns those that can take new flows with their slots.
    fn compile_backends(
        &mut self,
        reference: &Reference,
        record: &Record<Service>,
        resource: &Resource,
        id: u32,
        network_number: u32,
    ) -> Vec<(Candidate, u32)> {
        let spec = &record.object.spec;
        let network = Reference::new(reference.tenant.clone(), spec.network.clone());
        let fails_open = self.observed.fails_open(reference, spec, resource);
        let (mut slots, mut usable) = (Vec::new(), Vec::new());
        for backend in &resource.backends {
            if self
                .observed
                .is_drained(reference, resource, backend.address)
            {
                continue;
            }
            let unhealthy = !fails_open
                && self
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
                    name::BACKENDS,
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
                network: network_number,
                flags: 0,
                mac: mac.into(),
            };
            self.snapshot.backends.insert(slot, value);
            self.keys.push(EntryKey::Backend(slot));
            slots.push(slot);
            if next_hop.is_some() && !unhealthy && !backend.drain && backend.weight > 0 {
                let candidate = Candidate {
                    address: backend.address,
                    weight: backend.weight,
                };
                usable.push((candidate, slot));
            }
        }
        self.flag_unusable_backends(&slots, &usable, spec.health_check.unhealthy_flow_action);
        usable
    }

    /// Sets the flags of a resource's backends that can't take new flows. UDP flows leave such a backend if there is
    /// another one, unless the service keeps them.
    fn flag_unusable_backends(
        &mut self,
        slots: &[u32],
        usable: &[(Candidate, u32)],
        action: UnhealthyFlowAction,
    ) {
        let mut flags = Backend::TAKES_NO_FLOWS;
        if action != UnhealthyFlowAction::Keep && !usable.is_empty() {
            flags |= Backend::RELEASES_UDP;
        }
        let usable: HashSet<u32> = usable.iter().map(|(_, slot)| *slot).collect();
        for slot in slots.iter().filter(|slot| !usable.contains(slot)) {
            if let Some(backend) = self.snapshot.backends.get_mut(slot) {
                backend.flags = flags;
            }
        }
    }

    /// Compiles the resource's Maglev table. The present range is kept if its contents are still correct.
    fn compile_maglev_table(
        &mut self,
        resource: u32,
        usable: &[(Candidate, u32)],
    ) -> Option<(u32, u32)> {
        let candidates: Vec<Candidate> = usable.iter().map(|(candidate, _)| *candidate).collect();
        let table: Vec<u32> = maglev::build_table(&candidates)
            .into_iter()
            .map(|index| usable[index].1)
            .collect();
        let size = u32::try_from(table.len()).ok()?;
        if size == 0 {
            return Some((0, 0));
        }
        let current = find_port(self.current, resource).filter(|port| {
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

    /// Compiles the resource's ports, which name the ranges of its Maglev table and of the service's SNAT addresses.
    fn compile_ports(
        &mut self,
        record: &Record<Service>,
        resource: &Resource,
        id: u32,
        network: u32,
        nat: SnatRange,
        (maglev_offset, maglev_size): (u32, u32),
    ) {
        let mut flags = 0;
        if record.object.spec.no_backend_action == NoBackendAction::Drop {
            flags |= Port::DROP_IF_NO_BACKEND;
        }
        if record.object.spec.session_affinity == SessionAffinity::ClientAddress {
            flags |= Port::CLIENT_AFFINITY;
        }
        if record.object.spec.preserve_privileged_ports {
            flags |= Port::PRIVILEGED_PORTS;
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
fn find_port(snapshot: &MapSnapshot, resource: u32) -> Option<&Port> {
    let from = PortKey {
        resource,
        ..PortKey::default()
    };
    let (key, port) = snapshot.ports.range(from..).next()?;
    (key.resource == resource).then_some(port)
}
