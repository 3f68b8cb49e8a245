//! The background tasks of the agent.

pub mod flow_gc;
pub mod health_check;
pub mod webhook_sender;
