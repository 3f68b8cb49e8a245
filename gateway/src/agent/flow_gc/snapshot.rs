//! Snapshot of the state that flow GC judges flows by.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result};
use gateway_common::{
    Family,
    flow::{CoarseTime, Flow},
    maps::{Backend, Egress},
};

use crate::{
    agent::{
        connection_index::ConnectionIndex,
        flow_gc::{DepartedBackends, GcReport},
    },
    bpf::{flow_tables::FlowTableSet, maps},
    compile::{flow_expiry::FlowPolicy, map_snapshot::MapSnapshot},
};

/// Snapshot of the state that flows are judged by.
#[derive(Debug)]
pub struct GcSnapshot {
    pub(super) now: CoarseTime,
    /// Generation and timeouts, by connection slot.
    connections: ConnectionIndex,
    /// Backends, by slot.
    pub(super) backends: BTreeMap<u32, Backend>,
    pub(super) departed_backends: DepartedBackends,
    /// Egress entries with interface numbers, by attachment slot.
    pub(super) egress: BTreeMap<u32, (Egress, u32)>,
    /// Flow counts of the data path, by connection slot; zeros are left out.
    flows: HashMap<u32, u64>,
}

impl GcSnapshot {
    /// Takes a snapshot of the maps' contents. Flows are not counted yet.
    #[must_use]
    pub fn new(
        maps: &MapSnapshot,
        connections: ConnectionIndex,
        departed_backends: DepartedBackends,
    ) -> Self {
        let egress = maps.egress.iter().filter_map(|(slot, egress)| {
            let ifindex = maps.tx_ports.get(slot)?;
            Some((*slot, (*egress, *ifindex)))
        });
        Self {
            connections,
            departed_backends,
            backends: maps.backends.clone(),
            egress: egress.collect(),
            ..Self::empty()
        }
    }

    /// Returns the snapshot of a gateway without connections.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            now: maps::now(),
            connections: ConnectionIndex::default(),
            backends: BTreeMap::new(),
            departed_backends: HashMap::new(),
            egress: BTreeMap::new(),
            flows: HashMap::new(),
        }
    }

    /// Returns the next hops of backends that had left their slot.
    #[must_use]
    pub const fn departed_backends(&self) -> &DepartedBackends {
        &self.departed_backends
    }

    /// Reads the data path's own flow counts of connections.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn count_flows(&mut self, tables: &FlowTableSet) -> Result<()> {
        let flows = tables.flows_by_connection();
        self.flows = flows.context("failed to read map CONN_USAGE")?;
        Ok(())
    }

    /// Returns the slots of connections that had flows, or have some in the report.
    pub fn slots_with_flows(&self, report: &GcReport) -> BTreeSet<u32> {
        let slots = self.flows.keys().chain(report.flows.keys());
        slots
            .filter(|slot| self.connections.get(**slot).is_some())
            .copied()
            .collect()
    }

    /// Returns the data path's flow count of the connection.
    #[must_use]
    pub fn flow_count(&self, slot: u32) -> u64 {
        self.flows.get(&slot).copied().unwrap_or(0)
    }

    /// Returns true if the flow's backend was removed, or its slot belongs to another one.
    pub(super) fn is_backend_removed<F: Family>(&self, flow: &Flow<F>) -> bool {
        let (slot, generation) = flow.backend();
        self.backends
            .get(&slot)
            .is_none_or(|backend| backend.resource == 0 || backend.generation != generation)
    }

    /// Returns true if the flow's connection has the generation under which the flow was opened.
    pub(super) fn is_approved<F: Family>(&self, flow: &Flow<F>) -> bool {
        self.connections
            .get(flow.connection_slot)
            .is_some_and(|policy| policy.generation == flow.generation)
    }

    /// Returns the policy by which the flow expires; `None` if its connection or its backend is gone.
    pub(super) fn policy_for<F: Family>(&self, flow: &Flow<F>) -> Option<FlowPolicy> {
        let policy = self.connections.get(flow.connection_slot).copied();
        policy.filter(|_| !self.is_backend_removed(flow))
    }
}
