//! Counting of flows, by which the data path's own counts are corrected.
//!
//! The data path counts a flow when it is opened, established and closed. Its counts are exact but for a connection
//! whose slot was given to another one while flows of the first were still there. Flows that are opened or closed during
//! a collection are in one of the counts only. So a difference is corrected only if two collections have found the same,
//! and the data path has counted nothing during the second one.

use std::{collections::HashMap, time::Duration};

use gateway_common::{
    V4, V6,
    flow::{FlowCount, FlowRef, PlaceState},
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
    /// Flows by backend slot.
    backends: Vec<u64>,
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
        let backend = usize::from(flow.entry().backend_slot);
        if backend >= self.backends.len() {
            self.backends.resize(backend + 1, 0);
        }
        self.backends[backend] += 1;
        let established = i64::from(flow.control.is_confirmed());
        self.connections[slot].flows += 1;
        self.connections[slot].established += established;
        self.established += established;
    }

    /// Takes the numbers of flows by backend slot.
    pub(super) fn take_backends(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.backends)
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
    /// Number of connection slots that had flows at some time.
    slots: usize,
}

/// The data path's counts before a collection, where the last one has found a difference.
#[derive(Debug, Default)]
pub(super) struct CountsBefore {
    connections: HashMap<u32, Words>,
    tables: [FlowCount; 2],
}

/// The words of a connection's counts. They change whenever a flow is opened, established or closed.
type Words = (FlowCount, FlowCount);

fn words(tables: &FlowTableSet, slot: u32) -> Words {
    let usage = tables.usage(slot);
    (usage.flows, usage.established)
}

/// Time in which the data path is done with a packet: it counts a flow before the entry is there, and after it is gone.
const PACKET_TIME: Duration = Duration::from_millis(1);

impl Drift {
    /// Reads the data path's counts before a collection.
    pub(super) fn before(&self, tables: &FlowTableSet) -> CountsBefore {
        let slots = self.connections.keys();
        let before = CountsBefore {
            connections: slots.map(|slot| (*slot, words(tables, *slot))).collect(),
            tables: [
                tables.table_usage::<V4>().established,
                tables.table_usage::<V6>().established,
            ],
        };
        self.wait();
        before
    }

    /// Waits until packets that were counted are done, where the last collection has found a difference.
    fn wait(&self) {
        if !self.connections.is_empty() || self.tables != [0; 2] {
            std::thread::sleep(PACKET_TIME);
        }
    }

    /// Corrects the data path's counts where they differ in the same way as after the last collection, and have not
    /// changed during this one.
    pub(super) fn correct(
        &mut self,
        tables: &FlowTableSet,
        mut counts: FlowCounts,
        before: &CountsBefore,
    ) {
        self.wait();
        self.slots = self.slots.max(counts.connections.len());
        counts.connections.resize(self.slots, Counted::default());
        let last = std::mem::take(&mut self.connections);
        for (slot, counted) in (0..).zip(&counts.connections) {
            let now = words(tables, slot);
            let drift = Counted {
                flows: counted.flows.saturating_sub_unsigned(now.0.get()),
                established: counted.established.saturating_sub_unsigned(now.1.get()),
            };
            if drift == Counted::default() {
                continue;
            }
            if last.get(&slot) == Some(&drift) && before.connections.get(&slot) == Some(&now) {
                tables.adjust_usage(slot, drift.flows, drift.established);
            } else {
                self.connections.insert(slot, drift);
            }
        }
        self.correct_table::<V4>(tables, &counts, before);
        self.correct_table::<V6>(tables, &counts, before);
    }

    fn correct_table<F: HasFlowTable>(
        &mut self,
        tables: &FlowTableSet,
        counts: &FlowCounts,
        before: &CountsBefore,
    ) {
        let index = if F::USAGE_INDEX == 0 { 0 } else { 1 };
        let counted = counts.tables.get(index).copied().unwrap_or(0);
        let now = tables.table_usage::<F>().established;
        let drift = counted.saturating_sub_unsigned(now.get());
        if drift != 0 && self.tables[index] == drift && before.tables[index] == now {
            tables.adjust_table_usage::<F>(drift);
            self.tables[index] = 0;
        } else {
            self.tables[index] = drift;
        }
    }
}
