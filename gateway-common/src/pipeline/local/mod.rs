//! Replies of local addresses to ARP, neighbour discovery and echo requests, the detection of address conflicts, and
//! the removal of priority tags.

pub(crate) mod arp;
pub(crate) mod conflict;
pub(crate) mod echo;
pub(crate) mod mld;
pub(crate) mod ndp;
pub(crate) mod priority_tag;
