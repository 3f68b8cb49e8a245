//! Connection tracking: the look-up of a packet's flow, and the state that the packet changes.
//!
//! A flow is searched in the established table first, then in the half-open one. It moves from the second to the
//! first when both sides have confirmed it. See [`flow`](crate::flow) for the states.

pub(crate) mod established;
pub(crate) mod half_open;
