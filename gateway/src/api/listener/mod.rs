//! Connections: who may have how many, and how long each may do nothing.

mod http;
mod registry;
mod transport;

pub(super) use self::{
    http::{HEAD_PATIENCE, serve},
    registry::{Limits, Registry, Seat},
    transport::Timed,
};
