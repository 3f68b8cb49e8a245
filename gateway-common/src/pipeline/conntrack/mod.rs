//! Connection tracking: the lookup of a packet's flow, and the state that the packet changes.

pub(crate) mod established;
pub(crate) mod half_open;
