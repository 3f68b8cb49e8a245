//! Counting of flows, by which the data path's own counts are corrected.
//!
//! The data path counts a flow when it is opened, established and closed. Its counts are exact but for a connection
//! whose slot was given to another one while flows of the first were still there. A difference is corrected when two
//! collections have found the same: flows that are opened or closed during one collection are in one of the counts
//! only.

use std::collections::HashMap;

use gateway_common::{
    V4, V6,
    flow::{FlowRef, PlaceState},
};

use crate::bpf::flow_tables::{FlowTableSet, HasFlowTable};

/// Numbers of flows and of established flows of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    flows: i64,
    established: i64,
}

/// Numbers of flows that a collection has found.
#[derive(Debug, Default)]
pub(super) struct FlowCounts {
    /// By connection slot.
    connections: Vec<Counted>,
    /// Established flows of the table that is being counted.
    established: i64,
    /// Established flows of both tables.
    tables: Vec<i64>,
}

impl FlowCounts {
    /// Counts a flow, given its entry towards the service.
    pub(super) fn add<F: HasFlowTable>(&mut self, flow: &FlowRef<F>) {
        if flow.control.is(PlaceState::Closed) {
            return;
        }
        let Ok(slot) = usize::try_from(flow.entry().connection_slot()) else {
            return;
        };
        if slot >= self.connections.len() {
            self.connections.resize(slot + 1, Counted::default());
        }
        let established = i64::from(flow.control.is_confirmed());
        self.connections[slot].flows += 1;
        self.connections[slot].established += established;
        self.established += established;
    }

    /// Finishes the counting of a table.
    pub(super) fn finish_table(&mut self) {
        self.tables.push(std::mem::take(&mut self.established));
    }
}

/// Differences between the data path's counts and those of the last collection.
#[derive(Debug, Default)]
pub(super) struct Drift {
    connections: HashMap<u32, Counted>,
    tables: [i64; 2],
}

impl Drift {
    /// Corrects the data path's counts where they differ in the same way as after the last collection.
    pub(super) fn correct(&mut self, tables: &FlowTableSet, counts: &FlowCounts) {
        let last = std::mem::take(&mut self.connections);
        for (slot, counted) in (0..).zip(&counts.connections) {
            let usage = tables.usage(slot);
            let drift = Counted {
                flows: counted.flows.saturating_sub_unsigned(usage.flows),
                established: counted
                    .established
                    .saturating_sub_unsigned(usage.established),
            };
            if drift == Counted::default() {
                continue;
            }
            if last.get(&slot) == Some(&drift) {
                tables.adjust_usage(slot, drift.flows, drift.established);
            } else {
                self.connections.insert(slot, drift);
            }
        }
        self.correct_table::<V4>(tables, counts);
        self.correct_table::<V6>(tables, counts);
    }

    fn correct_table<F: HasFlowTable>(&mut self, tables: &FlowTableSet, counts: &FlowCounts) {
        let index = if F::USAGE_INDEX == 0 { 0 } else { 1 };
        let counted = counts.tables.get(index).copied().unwrap_or(0);
        let drift = counted.saturating_sub_unsigned(tables.table_usage::<F>().established);
        if drift != 0 && self.tables[index] == drift {
            tables.adjust_table_usage::<F>(drift);
            self.tables[index] = 0;
        } else {
            self.tables[index] = drift;
        }
    }
}
