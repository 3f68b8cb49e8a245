//! Compilation of endpoints: connections, rate limits and local addresses. Pure.

use gateway_common::{
    IpAddress,
    maps::{AddressKey, Connection, Limits, LocalAddress},
};

use crate::{
    compile::{compile_cache::EntryKey, compiler::Compiler},
    model::{ConnectionState, Endpoint, Record, Reference, service::UnmatchedPacketAction},
};

impl Compiler<'_> {
    /// Compiles the connection and the addresses of an endpoint.
    pub(super) fn compile_endpoint(&mut self, reference: &Reference, record: &Record<Endpoint>) {
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
        let timeouts = service.map(|service| service.object.spec.timeouts.to_map_timeouts());
        let timeouts = timeouts.unwrap_or_default();
        let limited = limits != Limits::default();
        if limited {
            self.snapshot.limits.insert(connection.slot, limits);
        }
        self.snapshot.connections.insert(
            connection.slot,
            Connection {
                id: connection.link_id,
                generation,
                network: self.network_number(reference, endpoint),
                has_limits: u32::from(limited),
                timeouts,
                reserved: 0,
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
        self.compile_addresses(reference, endpoint, value);
        self.keys.push(EntryKey::Connection(connection.slot));
    }

    /// Returns the number of the endpoint's network, or 0 if there is none.
    fn network_number(&self, reference: &Reference, endpoint: &Endpoint) -> u32 {
        let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
        let network = self.state.networks.get(&network);
        network.map_or(0, |record| record.object.number)
    }

    /// Compiles the endpoint's addresses. An address that another host may have is tentative: conflicts about it are
    /// detected, but the gateway does not answer for it yet.
    fn compile_addresses(
        &mut self,
        reference: &Reference,
        endpoint: &Endpoint,
        value: LocalAddress,
    ) {
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
            let tentative = self.is_tentative(&network, *address);
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
}
