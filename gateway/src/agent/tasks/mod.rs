//! Tasks of the agent. Each runs until the process ends.

pub(crate) mod address_probe;
pub(crate) mod flow_gc;
pub(crate) mod health_check;
pub(crate) mod host_sync;
pub(crate) mod multicast_listener;
pub(crate) mod neighbours;
pub(crate) mod packet_log;
pub(crate) mod traffic;
pub(crate) mod webhook_sender;
