//! The agent and the command line of the private link gateway.

pub mod dataplane;
pub mod model;
pub mod store;
