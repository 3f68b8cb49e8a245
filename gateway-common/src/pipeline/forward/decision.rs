//! The forwarding decision: everything that the rewriting of a packet requires.

use crate::{
    family::Family,
    flow::FlowRef,
    maps::Egress,
    pipeline::forward::{identification::Identification, next_hop::NextHop},
};

/// The next hop of a packet, and the form in which it leaves.
pub(crate) struct ForwardingDecision<'a, T: Family> {
    /// Flow of the packet.
    pub(crate) flow: &'a FlowRef<T>,
    /// Next hop of the packet.
    pub(crate) next_hop: NextHop,
    /// Interface that the packet leaves by.
    pub(crate) egress: Egress,
    /// Maximum segment size that a SYN may announce.
    pub(crate) max_segment_size: u16,
    /// Identification that the packet leaves with.
    pub(crate) identification: Identification,
}
