//! Compilation of desired and observed state into map contents, and the plan of the writes between two contents.
//!
//! All modules are pure: they do no I/O, and use the data path's map layouts but no maps.

pub(crate) mod backend_slots;
pub mod compile_cache;
pub mod compiler;
pub mod dirty;
pub mod flow_expiry;
pub mod maglev;
pub mod map_snapshot;
pub(crate) mod nat46_usage;
pub mod observed;
pub mod plan;
pub mod range_allocator;
