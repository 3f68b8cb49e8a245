//! Handles of the BPF maps: reads their contents, applies plans, and reads counters.

mod apply;
mod counters;
mod flows;
mod handles;
mod snapshot;

pub use flows::{FragmentRecords, HasFragmentRecords, now};
pub use handles::Maps;
