//! Replies of local addresses: ARP, neighbour discovery, echo, and the detection of address conflicts.

pub(crate) mod arp;
pub(crate) mod conflict;
pub(crate) mod echo;
pub(crate) mod ndp;
