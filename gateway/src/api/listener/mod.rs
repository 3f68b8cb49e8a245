//! Connections of a listener: their limits, time-outs, and HTTP on each of them.

mod http;
mod registry;
mod write_timeout;

pub(super) use self::{
    http::{HEADER_TIMEOUT, serve},
    registry::{ConnectionRegistry, ListenerLimits, RegisteredConnection},
    write_timeout::WriteTimeoutStream,
};
