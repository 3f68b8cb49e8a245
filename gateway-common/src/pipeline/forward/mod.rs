//! Forwarding of a packet by its flow.
//!
//! ```text
//!   next_hop          backend's or consumer's MAC address, egress slot
//!      │
//!   send              egress up? within the MTU? TTL left? rate limit? identification?
//!      │
//!      ├─► rewrite    within the family: addresses, ports, TTL, checksums, MAC addresses
//!      └─► nat46      into the other family: a new IP header (RFC 7915)
//! ```

pub(crate) mod decision;
pub(crate) mod identification;
pub(crate) mod mtu;
pub(crate) mod nat46;
pub(crate) mod next_hop;
pub(crate) mod rewrite;
pub(crate) mod send;
pub(crate) mod tcp_options;
