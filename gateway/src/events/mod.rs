//! The event log, the queue of webhook deliveries, and idempotency keys.

pub mod event_log;
pub mod idempotency;
pub mod webhook_queue;
