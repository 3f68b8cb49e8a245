//! Compilation of desired and observed state into map contents, and the plan of the writes between two contents.
//!
//! All modules are pure: they do no I/O, and use the data path's map layouts but no maps.

mod backend_slots;
pub mod capacity;
pub mod compile_cache;
mod compiler;
pub mod dirty;
pub mod draining;
mod endpoint;
pub mod flow_expiry;
pub mod maglev;
pub mod map_snapshot;
mod nat46_usage;
pub mod network;
pub mod observed;
pub mod plan;
pub mod range_allocator;
pub mod recompile;
mod service;
#[cfg(test)]
mod tests;
