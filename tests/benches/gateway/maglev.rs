//! The tables that choose backends: how long they take to build, how even they are, and how many flows a
//! backend's loss moves.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use gateway::compile::maglev::{Candidate, build_table};
use serde::Serialize;

/// One size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// How many backends share it.
    backends: usize,
    /// How many places it has.
    places: usize,
    /// Milliseconds to build it: the least of several times.
    build_ms: f64,
    /// The share of the backend with the most places, and of the one with the fewest, against an even
    /// one.
    max_share: f64,
    min_share: f64,
    /// The part of places that change when a backend goes, and what must change: its own.
    moved: f64,
    its_own: f64,
}

impl Table {
    /// As a row for people.
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
    // Without the last one: the others keep their numbers.
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
        // With one backend left there is no table: all are its.
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
