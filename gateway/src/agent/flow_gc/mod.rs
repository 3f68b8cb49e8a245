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

use std::collections::{HashMap, HashSet};

use gateway_common::{
    Family, IpAddress, V4, V6,
    flow::{CoarseTime, Direction, FlowKey, FlowRef, PlaceState, TcpState},
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
    compile::flow_expiry::{FlowEntry, FlowPair, is_orphan_expired, is_recent},
    inject::frames::TcpTermination,
};

pub use snapshot::GcSnapshot;
pub use termination::DepartedBackends;

/// Result of one collection.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Number of removed entries.
    pub removed: usize,
    /// Ends of TCP flows to be terminated, with the interfaces that lead to them.
    pub terminations: Vec<(u32, TcpTermination)>,
    /// Usage of SNAT addresses, by network number and address.
    pub snat: HashMap<(u32, IpAddress), SnatUsage>,
}

/// Collector of expired and revoked flows.
#[derive(Debug)]
pub struct FlowGc {
    tables: FlowTableSet,
    drift: Drift,
    /// Revoked flows whose ends have been sent a reset.
    notified_v4: HashSet<FlowKey<V4>>,
    notified_v6: HashSet<FlowKey<V6>>,
}

impl FlowGc {
    /// Returns a collector for these tables.
    #[must_use]
    pub fn new(tables: FlowTableSet) -> Self {
        Self {
            tables,
            drift: Drift::default(),
            notified_v4: HashSet::new(),
            notified_v6: HashSet::new(),
        }
    }

    /// Goes over both flow tables once.
    pub fn collect(&mut self, snapshot: &GcSnapshot) -> GcReport {
        let mut collection = Collection {
            tables: &self.tables,
            snapshot,
            now: maps::now(),
            report: GcReport::default(),
            counts: FlowCounts::default(),
            snat_ports: SnatPortCounter::default(),
        };
        collection.collect_table::<V4>(&mut self.notified_v4);
        collection.collect_table::<V6>(&mut self.notified_v6);
        let Collection {
            mut report,
            counts,
            snat_ports,
            ..
        } = collection;
        self.drift.correct(&self.tables, &counts);
        report.snat = snat_ports.into_usage();
        report
    }
}

/// One collection, with its results so far.
struct Collection<'a> {
    tables: &'a FlowTableSet,
    snapshot: &'a GcSnapshot,
    now: CoarseTime,
    report: GcReport,
    counts: FlowCounts,
    snat_ports: SnatPortCounter,
}

impl Collection<'_> {
    fn collect_table<F: HasFlowTable>(&mut self, notified: &mut HashSet<FlowKey<F>>) {
        let mut still_notified = HashSet::new();
        let table = F::flow_table(self.tables);
        for flow in table.entries(0) {
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
                        self.judge(table, flow, notified, &mut still_notified);
                    }
                }
            }
        }
        self.counts.finish_table::<F>();
        *notified = still_notified;
    }

    /// Removes an expired entry that has lost its other direction, and so can't carry traffic.
    fn collect_orphan<F: HasFlowTable>(&mut self, table: &FlowTable<F>, flow: FlowRef<F>) {
        if is_orphan_expired(flow.control, flow.entry().last_seen(), self.now)
            && table.peer(&flow).is_none()
        {
            self.report.removed += usize::from(self.tables.remove(flow));
        }
    }

    /// Removes a flow that has expired, given its entry towards the service. Terminates both ends of an open TCP flow
    /// that has expired or ended.
    fn judge<F: HasFlowTable>(
        &mut self,
        table: &FlowTable<F>,
        flow: FlowRef<F>,
        notified: &HashSet<FlowKey<F>>,
        still_notified: &mut HashSet<FlowKey<F>>,
    ) {
        let Some(peer) = table.peer(&flow) else {
            self.collect_orphan(table, flow);
            return;
        };
        let pair = FlowPair::from_entries(copy(&flow), copy(&peer));
        // Judged by the copies, which no packet changes.
        if !flow.is_current() || !peer.is_current() {
            return;
        }
        let timeouts = self.tables.timeouts(&pair.to_service.flow);
        let is_expired = pair.is_expired(self.now, timeouts);
        let is_open = pair.to_service.control.is_confirmed()
            && matches!(
                pair.tcp_state(),
                Some(TcpState::Established | TcpState::HalfClosed)
            );
        let key = pair.to_service.key;
        if is_open && (timeouts.is_none() || is_expired) && !notified.contains(&key) {
            let terminations = self.snapshot.terminations(self.tables, &pair);
            self.report.terminations.extend(terminations);
        }
        if is_expired {
            // The entry towards the consumer reserves the source port, so it is removed last.
            self.report.removed += usize::from(self.tables.remove(flow));
            self.report.removed += usize::from(self.tables.remove(peer));
        } else if timeouts.is_none() {
            still_notified.insert(key);
        }
    }
}

/// Copies an entry.
fn copy<F: Family>(flow: &FlowRef<F>) -> FlowEntry<F> {
    FlowEntry {
        control: flow.control,
        key: flow.place.key(),
        flow: flow.place.flow(),
    }
}
