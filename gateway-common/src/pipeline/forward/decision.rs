//! The decision about a packet that is forwarded: everything that rewriting it needs.

use crate::{
    family::Family,
    flow::FlowRef,
    maps::Egress,
    pipeline::forward::{identification::Identification, next_hop::NextHop},
};

/// Where a segment goes, and as what.
pub(crate) struct ForwardingDecision<'a, T: Family> {
    /// The segment's flow.
    pub(crate) flow: &'a FlowRef<T>,
    /// The station that it goes to.
    pub(crate) next_hop: NextHop,
    /// The interface that it leaves by.
    pub(crate) egress: Egress,
    /// The largest segment that a SYN may ask for.
    pub(crate) max_segment_size: u16,
    /// The identification that it leaves with.
    pub(crate) identification: Identification,
}
