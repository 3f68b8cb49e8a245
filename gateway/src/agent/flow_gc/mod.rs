//! Flow garbage collection (GC): removes expired flows, terminates both ends of revoked TCP flows, and counts what
//! connections and SNAT addresses use. Works on a snapshot without the controller's lock, because a full table takes
//! seconds.

mod snapshot;
mod termination;
mod usage;

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use gateway_common::{
    IpAddress, V4, V6,
    flow::{Direction, Flow, FlowKey, Table, TcpState},
};

use crate::{
    agent::{flow_gc::usage::SnatPortCounter, status::SnatUsage},
    bpf::flow_tables::{FlowTableSet, HasFlowTableFds},
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
    /// Ends of TCP flows to be terminated, with the interfaces that lead to them.
    pub terminations: Vec<(u32, TcpTermination)>,
    /// True if flows looked revoked, but are not older than the snapshot: they must be checked again after one unit of
    /// [`gateway_common::flow::CoarseTime`].
    pub needs_recheck: bool,
    /// Number of flows, by connection slot; revoked ones are left out.
    pub flows: HashMap<u32, u64>,
    /// Usage of SNAT addresses, by network number and address.
    pub snat: HashMap<(u32, IpAddress), SnatUsage>,
}

/// Collector of expired and revoked flows.
#[derive(Debug)]
pub struct FlowGc {
    tables: FlowTableSet,
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
            notified_v4: HashSet::new(),
            notified_v6: HashSet::new(),
        }
    }

    /// Reads the data path's flow counts into the snapshot, then collects.
    ///
    /// # Errors
    /// When a map can't be read or written.
    pub fn count_and_collect(&mut self, snapshot: &mut GcSnapshot) -> Result<GcReport> {
        snapshot.count_flows(&self.tables)?;
        self.collect(snapshot)
    }

    /// Iterates over all flow tables once.
    ///
    /// # Errors
    /// When a map can't be read or written.
    pub fn collect(&mut self, snapshot: &GcSnapshot) -> Result<GcReport> {
        let mut collection = Collection {
            tables: &self.tables,
            snapshot,
            report: GcReport::default(),
            snat_ports: SnatPortCounter::default(),
        };
        for table in Table::ALL {
            collection.collect_table::<V4>(table, &mut self.notified_v4)?;
            collection.collect_table::<V6>(table, &mut self.notified_v6)?;
        }
        let Collection {
            mut report,
            snat_ports,
            ..
        } = collection;
        report.snat = snat_ports.into_usage();
        Ok(report)
    }
}

/// One collection, with its results so far.
struct Collection<'a> {
    tables: &'a FlowTableSet,
    snapshot: &'a GcSnapshot,
    report: GcReport,
    snat_ports: SnatPortCounter,
}

/// Entries of one table that need a closer look.
struct Candidates<F: HasFlowTableFds> {
    /// Entries that may have expired.
    entries: Vec<(FlowKey<F>, Flow<F>)>,
    /// Keys of revoked flows.
    revoked: HashSet<FlowKey<F>>,
}

impl Collection<'_> {
    fn collect_table<F: HasFlowTableFds>(
        &mut self,
        table: Table,
        notified: &mut HashSet<FlowKey<F>>,
    ) -> Result<()> {
        let Candidates { entries, revoked } = self.find_candidates::<F>(table)?;
        if table == Table::Established {
            notified.retain(|key| revoked.contains(key));
        }
        for (key, flow) in entries {
            let protocol = key.network_proto.protocol();
            let reverse = self.tables.get(table, &flow.reverse_key(protocol))?;
            let Some(pair) = reverse.and_then(|reverse| FlowPair::from_entries(key, flow, reverse))
            else {
                // The partner was evicted or removed, so the remaining entry can't carry traffic.
                if is_orphan_expired(&flow, self.snapshot.now) {
                    self.report.removed += usize::from(self.tables.remove(table, &key)?);
                }
                continue;
            };
            let open = matches!(
                pair.tcp_state(),
                Some(TcpState::Established | TcpState::HalfClosed)
            );
            let is_revoked = revoked.contains(&pair.key);
            let expired = pair.is_expired(
                self.snapshot.now,
                self.snapshot.policy_for(&pair.to_service),
            );
            if table == Table::Established
                && open
                && (is_revoked || expired)
                && !notified.contains(&pair.key)
            {
                self.report
                    .terminations
                    .extend(self.snapshot.terminations(&pair));
                notified.insert(pair.key);
            }
            if expired {
                // The reverse entry reserves the source port, so it is removed last.
                self.report.removed += usize::from(self.tables.remove(table, &pair.key)?);
                let reverse = pair.to_service.reverse_key(protocol);
                self.report.removed += usize::from(self.tables.remove(table, &reverse)?);
            }
        }
        Ok(())
    }

    /// Iterates over a table: counts its flows, and returns the entries that may be removed or terminated.
    fn find_candidates<F: HasFlowTableFds>(&mut self, table: Table) -> Result<Candidates<F>> {
        let Self {
            tables,
            snapshot,
            report,
            snat_ports,
        } = self;
        let mut candidates = Candidates {
            entries: Vec::new(),
            revoked: HashSet::new(),
        };
        tables
            .for_each(table, |key: &FlowKey<F>, flow: &Flow<F>| {
                let mut needs_check = !is_recent(flow, snapshot.now);
                match flow.direction() {
                    Direction::ToService => {
                        if !snapshot.is_approved(flow) || snapshot.is_backend_removed(flow) {
                            // A flow that was opened after the snapshot may belong to a connection or backend that is
                            // newer than the snapshot too.
                            if snapshot.now.since(flow.created_at()) > 0 {
                                candidates.revoked.insert(*key);
                                needs_check = true;
                            } else {
                                report.needs_recheck = true;
                            }
                        } else {
                            *report.flows.entry(flow.connection_slot).or_default() += 1;
                        }
                    }
                    Direction::ToConsumer => snat_ports.count(key),
                }
                // An entry that was used recently has not expired. For the others, the reverse entry may have been
                // used, so the pair is checked.
                if needs_check {
                    candidates.entries.push((*key, *flow));
                }
            })
            .context("failed to read the flow tables")?;
        Ok(candidates)
    }
}
