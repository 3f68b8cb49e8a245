//! Replies of local addresses to ARP, neighbour discovery and echo requests, and the detection of address conflicts.

pub(crate) mod arp;
pub(crate) mod conflict;
pub(crate) mod echo;
pub(crate) mod mld;
pub(crate) mod ndp;
