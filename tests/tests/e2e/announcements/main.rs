//! Announcements and claims of the gateway's addresses, as hosts and bridges on the link see them: gratuitous ARP,
//! unsolicited neighbour advertisements, probes, conflicts, and multicast listener reports.

mod carrier;
mod claims;
mod draining;
mod echo;
mod multicast;
mod outage;
mod taken;
mod tracking;
mod watch;
