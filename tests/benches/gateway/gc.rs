//! Time of a garbage collection of a full flow table.

use std::time::Instant;

use gateway::{
    agent::flow_gc::FlowGc,
    bpf::{flow_tables::HasFlowTable as _, maps},
};
use gateway_common::{V4, flow::CoarseTime};
use serde::Serialize;
use tests::datapath::differential::{DifferentialHarness, with_sized_harness};

use crate::{
    baselines::pin_to_cpu,
    flows::{MAX_FLOWS, fill},
};

/// Collections of each kind, of which the fastest counts.
const ROUNDS: u32 = 10;

/// Seconds for which idle flows have been idle: longer than the timeout of flows that are being closed, so that a flow is
/// judged by both of its entries, and less than that of established ones.
const IDLE_SECONDS: u32 = 600;

/// Times of a collection on one processor, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Collections {
    /// Number of entries in the table.
    pub(crate) entries: usize,
    /// All flows are idle, so each is judged by both of its entries.
    pub(crate) of_idle_flows: f64,
    /// All flows were used recently, so each is only counted.
    pub(crate) of_recent_flows: f64,
}

/// Measures collections of a table with as many established flows as it is made for, none of which is removed.
pub(crate) fn measure() -> Collections {
    with_sized_harness(0, MAX_FLOWS, |harness| {
        pin_to_cpu(1);
        let idle = CoarseTime(
            maps::now()
                .0
                .saturating_sub(CoarseTime::ticks(IDLE_SECONDS)),
        );
        let (entries, of_idle_flows) = measure_filled(harness, idle);
        harness.reset();
        let (_, of_recent_flows) = measure_filled(harness, maps::now());
        Collections {
            entries,
            of_idle_flows,
            of_recent_flows,
        }
    })
}

/// Fills the table, and returns the number of its entries and the milliseconds of a collection.
fn measure_filled(harness: &mut DifferentialHarness, last_seen: CoarseTime) -> (usize, f64) {
    let lost = fill(harness, MAX_FLOWS, last_seen);
    assert!(lost <= MAX_FLOWS / 10_000, "{lost} flows lost");
    let tables = harness.flow_tables();
    let mut gc = FlowGc::new(tables.clone());
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let report = gc.collect();
        best = best.min(begin.elapsed().as_secs_f64() * 1e3);
        assert_eq!(report.removed, 0);
        let counted: u64 = report.snat.values().map(|usage| usage.flows).sum();
        assert!(counted >= u64::from(MAX_FLOWS - lost));
    }
    (V4::flow_table(tables).entries(0).count(), best)
}
