//! The second implementation of the environment: maps in ordinary memory, a clock that is set, a
//! packet in a vector. Tests, `explain` and fuzzing run the stages in it.

mod calls;
mod maps;
mod packet;
mod platform;
mod tables;

pub use calls::HelperCallCounts;
pub use maps::SimMaps;
pub use tables::{AtomicMap, SimFlowTable, SimFlowTables};
