//! Maglev tables: build time, balance, and the share of flows that move when a backend is removed.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use gateway::compile::maglev::{Candidate, build_table};
use serde::Serialize;

/// Results for one table size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// Number of backends.
    backends: usize,
    /// Number of entries.
    places: usize,
    /// Build time in milliseconds, the minimum of several rounds.
    build_ms: f64,
    /// Largest and smallest share of a backend, relative to an even share.
    max_share: f64,
    min_share: f64,
    /// Share of entries that change when a backend is removed, and the share that must change: the removed backend's.
    moved: f64,
    its_own: f64,
}

impl Table {
    /// Returns the results as a row of text.
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.backends.to_string(),
            self.places.to_string(),
            format!("{:.2} ms", self.build_ms),
            format!("{:.3} .. {:.3}", self.min_share, self.max_share),
            format!(
                "{:.2} % ({:.2} % its own)",
                self.moved * 100.0,
                self.its_own * 100.0
            ),
        ]
    }
}

/// Measures tables of several sizes.
pub(crate) fn measure() -> Vec<Table> {
    [2, 10, 100, 1_000].map(measure_one).to_vec()
}

fn measure_one(backends: usize) -> Table {
    let candidates: Vec<Candidate> = (0..backends)
        .map(|number| Candidate {
            address: IpAddr::V4(Ipv4Addr::from(
                0x0a01_0000 + u32::try_from(number).expect("few"),
            )),
            weight: 1,
        })
        .collect();
    let mut build_ms = f64::INFINITY;
    let mut built = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        built = build_table(&candidates);
        build_ms = build_ms.min(begin.elapsed().as_secs_f64() * 1e3);
    }
    let mut shares = vec![0usize; backends];
    for backend in &built {
        shares[*backend] += 1;
    }
    let even = built.len() as f64 / backends as f64;
    // The last backend is removed, so the others keep their numbers.
    let without = build_table(&candidates[..backends - 1]);
    let compared = built.len().min(without.len());
    let same_size = built.len() == without.len();
    let moved = (0..compared)
        .filter(|index| built[*index] != without[*index])
        .count();
    Table {
        backends,
        places: built.len(),
        build_ms,
        max_share: shares.iter().max().map_or(0.0, |max| *max as f64 / even),
        min_share: shares
            .iter()
            .min()
            .map_or(0.0, |fewest| *fewest as f64 / even),
        // With one backend left there is no table.
        moved: if same_size {
            moved as f64 / built.len() as f64
        } else {
            shares
                .last()
                .map_or(0.0, |own| *own as f64 / built.len() as f64)
        },
        its_own: shares
            .last()
            .map_or(0.0, |own| *own as f64 / built.len() as f64),
    }
}
