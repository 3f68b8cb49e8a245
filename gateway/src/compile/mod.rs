//! Compilation of desired state and observations of the host into map entries, and the plan of writes between two
//! sets of entries. Pure: no I/O.

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
