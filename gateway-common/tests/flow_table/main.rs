//! Tests of the flow table: models of concurrent threads, threads, and comparison with a map.

mod against_map;
mod entries;
#[cfg(not(miri))]
mod insertions;
#[cfg(not(miri))]
mod lookups;
mod memory;
#[cfg(not(miri))]
mod model;
mod threads;
