//! Flow garbage collection (GC): removes expired flows, terminates both ends of revoked TCP flows, and counts what
//! connections and SNAT addresses use. Works on the mapped flow tables, without a system call for each entry and
//! without the controller's lock.
//!
//! The data path gives back places and ports of closed and expired flows itself. GC is sooner, and tells both ends of
//! a TCP connection.

mod counts;
mod snapshot;
mod termination;
mod usage;

use std::collections::HashMap;

use gateway_common::{
    IpAddress, V4, V6,
    flow::{CoarseTime, Direction, FlowRef, PlaceState, TcpState},
};

use crate::{
    agent::{
        flow_gc::{
            counts::{Drift, FlowCounts},
            usage::SnatPortCounter,
        },
        status::SnatUsage,
    },
    bpf::{
        flow_tables::{FlowTable, FlowTableSet, HasFlowTable},
        maps,
    },
    compile::flow_expiry::{FlowPair, is_orphan_expired, is_recent},
    inject::frames::TcpTermination,
};

pub use snapshot::GcSnapshot;
pub use termination::DepartedBackends;

/// Result of one collection.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Number of removed entries.
    pub removed: usize,
    /// Open TCP flows that have ended or expired: both of their ends are terminated.
    terminated_v4: Vec<FlowPair<V4>>,
    terminated_v6: Vec<FlowPair<V6>>,
    /// Usage of SNAT addresses, by network number and address.
    pub snat: HashMap<(u32, IpAddress), SnatUsage>,
    /// Flows by backend slot.
    pub backend_flows: Vec<u64>,
}

impl GcReport {
    /// Returns the frames that terminate both ends of flows, with the interfaces that they are sent from. The snapshot
    /// is to be taken after the collection, since a flow's backend may have left its slot meanwhile.
    #[must_use]
    pub fn terminations(
        &self,
        tables: &FlowTableSet,
        snapshot: &GcSnapshot,
    ) -> Vec<(u32, TcpTermination)> {
        let v4 = self.terminated_v4.iter();
        let v4 = v4.flat_map(|pair| snapshot.terminations(tables, pair));
        let v6 = self.terminated_v6.iter();
        let v6 = v6.flat_map(|pair| snapshot.terminations(tables, pair));
        v4.chain(v6).collect()
    }
}

/// Collector of expired and revoked flows.
#[derive(Debug)]
pub struct FlowGc {
    tables: FlowTableSet,
    drift: Drift,
}

impl FlowGc {
    /// Returns a collector for these tables.
    #[must_use]
    pub fn new(tables: FlowTableSet) -> Self {
        Self {
            tables,
            drift: Drift::default(),
        }
    }

    /// Goes over both flow tables once.
    pub fn collect(&mut self) -> GcReport {
        let before = self.drift.before(&self.tables);
        let mut collection = Collection {
            tables: &self.tables,
            now: maps::now(),
            report: GcReport::default(),
            counts: FlowCounts::default(),
            snat_ports: SnatPortCounter::default(),
        };
        let terminated_v4 = collection.collect_table::<V4>();
        let terminated_v6 = collection.collect_table::<V6>();
        let Collection {
            mut report,
            mut counts,
            snat_ports,
            ..
        } = collection;
        report.backend_flows = counts.take_backends();
        self.drift.correct(&self.tables, counts, &before);
        report.snat = snat_ports.into_usage();
        report.terminated_v4 = terminated_v4;
        report.terminated_v6 = terminated_v6;
        report
    }

    /// Returns the tables that are collected.
    #[must_use]
    pub const fn tables(&self) -> &FlowTableSet {
        &self.tables
    }
}

/// One collection, with its results so far.
struct Collection<'a> {
    tables: &'a FlowTableSet,
    now: CoarseTime,
    report: GcReport,
    counts: FlowCounts,
    snat_ports: SnatPortCounter,
}

impl Collection<'_> {
    /// Goes over a table. Returns the open TCP flows that have ended or expired.
    fn collect_table<F: HasFlowTable>(&mut self) -> Vec<FlowPair<F>> {
        let mut terminated = Vec::new();
        let table = F::flow_table(self.tables);
        let now = self.now;
        for flow in table.entries_with_peers(|flow| !is_recent(flow.entry().last_seen(), now)) {
            let entry = flow.entry();
            let is_recent = is_recent(entry.last_seen(), self.now);
            match entry.direction() {
                Direction::ToConsumer => {
                    if !flow.control.is(PlaceState::Closed) {
                        self.snat_ports.count(flow.key());
                    }
                    if !is_recent {
                        self.collect_orphan(table, flow);
                    }
                }
                Direction::ToService => {
                    let timeouts = self.tables.timeouts(entry);
                    if timeouts.is_some() {
                        self.counts.add(&flow);
                    }
                    // An entry that was used recently has not expired.
                    if timeouts.is_none() || !is_recent {
                        terminated.extend(self.judge(table, flow));
                    }
                }
            }
        }
        self.counts.finish_table();
        terminated
    }

    /// Removes an expired entry that has lost its other direction, and so can't carry traffic.
    fn collect_orphan<F: HasFlowTable>(&mut self, table: &FlowTable<F>, flow: FlowRef<F>) {
        if is_orphan_expired(flow.control, flow.entry().last_seen(), self.now)
            && table.peer(&flow).is_none()
        {
            self.report.removed += usize::from(self.tables.remove(flow));
        }
    }

    /// Removes a flow that has expired, and closes one that has ended, given its entry towards the service. Returns the
    /// flow if it was an open TCP flow.
    fn judge<F: HasFlowTable>(
        &mut self,
        table: &FlowTable<F>,
        flow: FlowRef<F>,
    ) -> Option<FlowPair<F>> {
        let Some(peer) = table.peer(&flow) else {
            self.collect_orphan(table, flow);
            return None;
        };
        let pair = FlowPair::copy(&flow, &peer)?;
        let timeouts = self.tables.timeouts(&pair.to_service.flow);
        let is_open = pair.to_service.control.is_confirmed()
            && matches!(
                pair.tcp_state(),
                Some(TcpState::Established | TcpState::HalfClosed)
            );
        if pair.is_expired(self.now, timeouts) {
            // The entry towards the consumer reserves the source port, so it is removed last.
            self.report.removed += usize::from(self.tables.remove(flow));
            self.report.removed += usize::from(self.tables.remove(peer));
        } else if timeouts.is_none() {
            // Closed, it counts against no limit. It stays for a while, so that its packets are rejected with the reason.
            self.tables.close(flow);
            self.tables.close(peer);
        } else {
            return None;
        }
        is_open.then_some(pair)
    }
}
