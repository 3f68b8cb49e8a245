//! Frames and ICMP errors as hosts and routers really send them.

mod path_mtu;
mod port_scan;
mod priority_tags;
