//! Agent and command line of the private link gateway.

// All output goes through `cli::terminal`, which escapes control characters.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod address_conflict;
pub mod agent;
pub mod api;
pub mod auth;
pub mod bpf;
pub mod capabilities;
pub mod cli;
pub mod client;
pub mod compile;
pub mod config;
pub mod daemon;
pub mod events;
pub mod files;
pub mod former_paths;
pub mod host;
pub mod inject;
pub mod lock;
pub mod log_limit;
pub mod logging;
pub mod memory;
pub mod mld;
pub mod model;
pub mod neighbour;
pub mod netlink;
pub mod outbound;
pub mod receive;
pub mod store;
