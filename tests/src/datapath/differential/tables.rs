//! Flow tables, counters and other dynamic state of both platforms.

use gateway::{bpf::flow_tables::HasFlowTable, model::Reference};
use gateway_common::{
    Be16, V4, V6,
    flow::{
        CoarseTime, Control, Direction, Flow, FlowKey, FlowTableUsage, NetworkProto, PlaceState,
    },
    maps::{AddressConflict, AddressKey, ConnectionCounters, ConnectionUsage, IdentificationState},
    packet::PortPair,
    pipeline::MIN_SOURCE_PORT,
    sim::{SimEntry, SimFlowTable, SimMaps},
};
use std::net::IpAddr;

use crate::packet::Mac;

use super::{DifferentialHarness, SEED};
use crate::packet::addresses::*;

/// Number of buckets of a native table that holds all ports of some SNAT addresses.
const LARGE_TABLE: u32 = 1 << 17;

impl DifferentialHarness {
    /// Removes half-open IPv4 flows from the kernel's table. Returns the number of removed entries.
    pub fn clear_half_open(&mut self) -> u32 {
        let tables = self.maps.flow_tables();
        let mut removed = 0;
        for found in V4::flow_table(tables).entries(0) {
            if found.control.is(PlaceState::HalfOpen) {
                removed += u32::from(tables.remove(found));
            }
        }
        removed
    }

    /// Empties the kernel's flow table.
    pub(super) fn clear_flow_table<F: HasFlowTable>(&self) {
        let tables = self.maps.flow_tables();
        for found in F::flow_table(tables).entries(0) {
            tables.remove(found);
        }
    }

    pub(super) fn kernel_flows<F: HasFlowTable>(&self) -> Vec<SimEntry<F>> {
        let entries = F::flow_table(self.maps.flow_tables()).entries(0);
        let mut flows: Vec<_> = entries
            .map(|found| (found.control, found.place.key(), found.place.flow()))
            .collect();
        flows.sort_by_key(|(_, key, _)| *key);
        flows
    }

    /// Returns the number of flows of both families in a state. `Established` stands for all confirmed flows.
    ///
    /// # Panics
    /// Panics if native and kernel tables differ.
    #[track_caller]
    pub fn flows(&self, state: PlaceState) -> usize {
        self.compare_flow_tables(state, &self.native.flows_v4)
            + self.compare_flow_tables(state, &self.native.flows_v6)
    }

    #[track_caller]
    pub(super) fn compare_flow_tables<F: HasFlowTable>(
        &self,
        state: PlaceState,
        native: &SimFlowTable<F>,
    ) -> usize {
        // Versions and places depend on what the places held before. Times are ignored: the native clock is set, the
        // kernel's runs.
        let comparable = |flows: Vec<SimEntry<F>>| -> Vec<_> {
            flows
                .into_iter()
                .map(|(control, key, mut flow)| {
                    flow.peer = 0;
                    flow.last_seen_and_scale =
                        Flow::<F>::last_seen_word(flow.last_seen_and_scale, CoarseTime(0));
                    if flow.direction() == Direction::ToService {
                        flow.set_created_at(CoarseTime(0));
                    }
                    (control.state(), control.flags_seen(), key, flow)
                })
                .collect()
        };
        let (native, kernel) = (
            comparable(native.entries()),
            comparable(self.kernel_flows::<F>()),
        );
        assert_eq!(
            native, kernel,
            "native flows (left) and the kernel's differ"
        );
        let is_counted = |control: Control| match state {
            PlaceState::Established => control.is_confirmed(),
            state => control.is(state),
        };
        native
            .iter()
            .filter(|(state, _, _, flow)| {
                flow.direction() == Direction::ToService
                    && is_counted(Control::NEVER_USED.with_state(*state))
            })
            .count()
    }

    /// Removes half-open entries, as if other flows had taken their places: those that packets of the consumer match, or
    /// those that packets of the provider match.
    pub fn evict_half_open(&mut self, side: Side) {
        let network = self.contents.attachments[&self.ifindexes[&side]].network;
        self.evict_half_open_of::<V4>(network);
        self.evict_half_open_of::<V6>(network);
        for (_, key, _) in self.native.flows_v4.half_open() {
            if key.network_proto.network() == network {
                self.native.flows_v4.remove(&key);
            }
        }
        for (_, key, _) in self.native.flows_v6.half_open() {
            if key.network_proto.network() == network {
                self.native.flows_v6.remove(&key);
            }
        }
    }

    fn evict_half_open_of<F: HasFlowTable>(&self, network: u32) {
        let table = F::flow_table(self.maps.flow_tables());
        for mut found in table.entries(0) {
            if found.control.is(PlaceState::HalfOpen)
                && found.key().network_proto.network() == network
            {
                let _before = found.remove();
            }
        }
    }

    /// Returns the usage of the IPv4 flow table.
    ///
    /// # Panics
    /// Panics if native and kernel counts differ.
    #[must_use]
    #[track_caller]
    pub fn flow_table_usage(&self) -> FlowTableUsage {
        let kernel = self.maps.flow_tables().table_usage::<V4>();
        let native = self.native.flow_table_usage.get(0);
        assert_eq!(native.established.get(), kernel.established.get());
        kernel
    }

    /// Returns an endpoint's usage of its limits.
    ///
    /// # Panics
    /// Panics if native and kernel counts of flows differ.
    #[must_use]
    #[track_caller]
    pub fn usage(&self, endpoint: &str) -> ConnectionUsage {
        let slot = self.connection_slot(endpoint);
        let kernel = self.maps.flow_tables().usage(slot);
        let native = self.native.usage.get(slot);
        assert_eq!(
            (native.flows.get(), native.established.get()),
            (kernel.flows.get(), kernel.established.get()),
            "native counts (left) and the kernel's differ"
        );
        native
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
        let all = self.conflicts_and_probes().into_iter();
        all.map(|(address, mac, _)| (address, mac)).collect()
    }

    /// Returns the detected address conflicts like [`Self::conflicts`], each with true if the other host only probed.
    ///
    /// # Panics
    /// Panics if native and kernel tables differ.
    #[must_use]
    pub fn conflicts_and_probes(&self) -> Vec<(IpAddr, Mac, bool)> {
        let seen = |key: &AddressKey, conflict: &AddressConflict| {
            let is_probe = conflict.is_probe != 0;
            (IpAddr::from(key.address), conflict.mac.bytes(), is_probe)
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
        self.native.flows_v4 = SimFlowTable::new(LARGE_TABLE, SEED);
        self.native.flow_table_size = LARGE_TABLE.into();
        let mut flow = Flow::default();
        flow.set_direction(Direction::ToConsumer, 0, false);
        flow.last_seen_and_scale = self.native.now.0;
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
                self.native
                    .flows_v4
                    .set(&key, &flow, PlaceState::Established);
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
