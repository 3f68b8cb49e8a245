//! Forwarding: the next hop, the checks of the egress, and the rewriting of headers.

pub(crate) mod decision;
pub(crate) mod identification;
pub(crate) mod mtu;
pub(crate) mod nat46;
pub(crate) mod next_hop;
pub(crate) mod rewrite;
pub(crate) mod send;
pub(crate) mod tcp_options;
