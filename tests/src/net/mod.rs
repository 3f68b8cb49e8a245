//! Network namespaces, and the processes and captures in them.

pub mod capture;
pub mod families;
pub mod namespace;
pub mod process;
pub mod short_connections;
pub mod tcp_client;
pub mod topology;
pub mod udp_client;
pub mod vlan_tagger;
pub mod wait;
