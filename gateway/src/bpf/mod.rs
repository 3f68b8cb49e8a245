//! The kernel side: loading and pinning the XDP program, and reading and writing its maps.

pub mod flow_tables;
pub mod loader;
pub mod maps;
pub mod syscalls;
