//! Kernel side of the data path: loads, pins and attaches the XDP program, and reads and writes its maps.

pub mod btf;
pub mod flow_tables;
mod layout7;
pub mod layouts;
pub mod loader;
pub mod mapping;
pub mod maps;
pub mod migrate;
pub mod syscalls;
mod transmit_failures;
