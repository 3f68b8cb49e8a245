//! Connections: who may have how many, and how long each may do nothing.

mod http;
mod registry;
mod write_timeout;

pub(super) use self::{
    http::{HEADER_TIMEOUT, serve},
    registry::{ConnectionRegistry, ListenerLimits, RegisteredConnection},
    write_timeout::WriteTimeoutStream,
};
