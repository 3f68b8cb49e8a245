//! Flow tables, counters and other dynamic state of both platforms.

use gateway::{bpf::maps::HasFlowMaps, model::Reference};
use gateway_common::{
    Be16, V4, V6,
    flow::{Direction, Flow, FlowKey, NetworkProto, StateWord, Table},
    maps::{AddressConflict, AddressKey, ConnectionCounters, ConnectionUsage, IdentificationState},
    packet::PortPair,
    pipeline::MIN_SOURCE_PORT,
    sim::{SimFlowTables, SimMaps},
};
use std::net::IpAddr;

use crate::packet::Mac;

use super::DifferentialHarness;
use crate::packet::addresses::*;

impl DifferentialHarness {
    /// Removes half-open IPv4 flows from the kernel's table.
    ///
    /// # Panics
    /// Panics if the kernel refuses.
    pub fn clear_half_open(&mut self) {
        for (key, _) in self.kernel_flows::<V4>(Table::HalfOpen) {
            let removed = self.maps.remove_flow(Table::HalfOpen, &key);
            removed.expect("a flow removed");
        }
    }

    /// Empties the kernel's flow tables.
    pub(super) fn clear_flow_tables<F: HasFlowMaps>(&mut self) {
        for table in [Table::Established, Table::HalfOpen] {
            for (key, _) in self.kernel_flows::<F>(table) {
                self.maps.remove_flow(table, &key).expect("a flow removed");
            }
        }
        self.maps
            .clear_fragments::<F>()
            .expect("fragments forgotten");
    }

    pub(super) fn kernel_flows<F: HasFlowMaps>(&self, table: Table) -> Vec<(FlowKey<F>, Flow<F>)> {
        let mut flows = Vec::new();
        let visit = |key: &FlowKey<F>, flow: &Flow<F>| flows.push((*key, *flow));
        self.maps.for_each_flow(table, visit).expect("the flows");
        flows.sort_by_key(|(key, _)| *key);
        flows
    }

    /// Returns the number of flows of both families in a table.
    ///
    /// # Panics
    /// Panics if native and kernel tables differ.
    #[track_caller]
    pub fn flows(&self, table: Table) -> usize {
        self.compare_flow_tables(table, &self.native.flows_v4)
            + self.compare_flow_tables(table, &self.native.flows_v6)
    }

    #[track_caller]
    pub(super) fn compare_flow_tables<F: HasFlowMaps>(
        &self,
        table: Table,
        native: &SimFlowTables<F>,
    ) -> usize {
        let native = match table {
            Table::Established => native.established.entries(),
            Table::HalfOpen => native.half_open.entries(),
        };
        // Times are ignored: the native clock is set, the kernel's runs.
        let timeless = |flows: Vec<(FlowKey<F>, Flow<F>)>| -> Vec<(FlowKey<F>, Flow<F>)> {
            let timeless = |flow: Flow<F>| Flow {
                last_seen: 0,
                state_word: match flow.direction() {
                    Direction::ToService => StateWord::NONE,
                    Direction::ToConsumer => flow.state_word,
                },
                ..flow
            };
            flows
                .into_iter()
                .map(|(key, flow)| (key, timeless(flow)))
                .collect()
        };
        let (native, kernel) = (timeless(native), timeless(self.kernel_flows(table)));
        assert_eq!(
            native, kernel,
            "native flows (left) and the kernel's differ"
        );
        native.len() / 2
    }

    /// Evicts half-open entries, as the kernel does when the table is full: those that packets of the consumer match,
    /// or those that packets of the provider match.
    pub fn evict_half_open(&mut self, side: Side) {
        let network = self.contents.attachments[&self.ifindexes[&side]].network;
        for (key, _) in self.kernel_flows::<V4>(Table::HalfOpen) {
            if key.network_proto.network() == network {
                self.maps
                    .remove_flow(Table::HalfOpen, &key)
                    .expect("a flow removed");
                self.native.flows_v4.half_open.remove(&key);
            }
        }
        for (key, _) in self.kernel_flows::<V6>(Table::HalfOpen) {
            if key.network_proto.network() == network {
                self.maps
                    .remove_flow(Table::HalfOpen, &key)
                    .expect("a flow removed");
                self.native.flows_v6.half_open.remove(&key);
            }
        }
    }

    /// Sets an endpoint's usage of its limits on both platforms.
    ///
    /// # Panics
    /// Panics if there is no such endpoint.
    pub fn set_usage(&mut self, endpoint: &str, usage: ConnectionUsage) {
        let slot = self.connection_slot(endpoint);
        self.maps.set_usage(slot, usage).expect("usage written");
        self.native.usage.set(slot, usage);
    }

    /// Sets the allocation state of all identifications used so far on both platforms.
    ///
    /// # Panics
    /// Panics if the kernel refuses.
    pub fn set_identifications(&mut self, state: IdentificationState) {
        for bucket in self.native.identification_states.indices() {
            self.native.identification_states.set(bucket, state);
            let written = self.maps.set_identifications(bucket, state);
            written.expect("identifications written");
        }
    }

    /// Returns the native counters of an endpoint.
    ///
    /// # Panics
    /// Panics if there is no such endpoint.
    #[must_use]
    pub fn forwarded_counters(&self, endpoint: &str) -> ConnectionCounters {
        let slot = self.connection_slot(endpoint);
        let counted = self.native.connection_counters.get(&slot);
        counted.copied().unwrap_or_default()
    }

    /// Returns the detected address conflicts: address and MAC address of its other user.
    ///
    /// # Panics
    /// Panics if native and kernel tables differ.
    #[must_use]
    pub fn conflicts(&self) -> Vec<(IpAddr, Mac)> {
        let seen = |key: &AddressKey, conflict: &AddressConflict| {
            (IpAddr::from(key.address), conflict.mac.bytes())
        };
        let kernel = self.maps.conflicts().expect("the conflicts");
        let kernel: Vec<_> = kernel.iter().map(|(k, v)| seen(k, v)).collect();
        let mut native: Vec<_> = self.native.conflicts.iter().collect();
        native.sort_by_key(|(key, _)| **key);
        let native: Vec<_> = native.into_iter().map(|(k, v)| seen(k, v)).collect();
        assert_eq!(native, kernel);
        native
    }

    /// Occupies `percent` of the source ports of a service's IPv4 SNAT addresses on the native platform, and returns
    /// their number. They are allocated towards UDP port 53 of the first backend.
    ///
    /// # Panics
    /// Panics if there is no such service.
    pub fn occupy_snat_ports(&mut self, service: &str, percent: u32) -> usize {
        let service: Reference = format!("shop/{service}").parse().expect("a reference");
        let spec = &self.desired.state.services[&service].object.spec;
        let network = self.contents.attachments[&self.ifindexes[&Side::Provider]].network;
        let word = |address: IpAddr| gateway_common::IpAddress::from(address).to_v4();
        let backend = spec.resources[0].backends[0].address;
        let source = word(backend).expect("IPv4");
        let addresses = spec.nat_addresses.iter().flat_map(|range| range.iter());
        let mut taken = 0;
        for address in addresses.filter_map(word) {
            for port in MIN_SOURCE_PORT..=u16::MAX {
                // The hash spreads occupied ports over the range.
                if u32::from(port).wrapping_mul(2_654_435_761) >> 16 >= percent * 0x1_0000 / 100 {
                    continue;
                }
                let key = FlowKey::<V4> {
                    network_proto: NetworkProto::new(network, 17),
                    source,
                    destination: address,
                    ports: PortPair::new(Be16::new(53), Be16::new(port)),
                };
                self.native.flows_v4.established.set(key, Flow::default());
                taken += 1;
            }
        }
        taken
    }

    /// Returns the native maps, for limits that the kernel's maps can't be given after their creation.
    pub fn native_maps(&mut self) -> &mut SimMaps {
        &mut self.native
    }
}
