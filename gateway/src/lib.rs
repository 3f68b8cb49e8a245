//! The agent and the command line of the private link gateway.

// Everything that is printed goes through `cli::terminal`, which escapes it.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod agent;
pub mod api;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod dataplane;
pub mod files;
pub mod lock;
pub mod log_limit;
pub mod logging;
pub mod memory;
pub mod model;
pub mod netlink;
pub mod outbound;
pub mod privileges;
pub mod store;
pub mod wire;
