//! What becomes of a packet.

use crate::DropReason;

/// The data path's decision about one packet; made by a stage, carried out and counted in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of ours: the host's own stack gets it, untouched.
    Pass,
    /// Gone, with a reason, and with the link slot of the endpoint it concerns
    /// ([`NO_LINK`](crate::maps::NO_LINK) where there is none).
    Drop(DropReason, u32),
    /// The packet was turned into the gateway's own answer (ARP, echo): out the way it came.
    Reply,
    /// The packet was turned into a TCP reset: out the way it came, counted like a drop.
    Reset(DropReason, u32),
    /// Rewritten; out through the attachment in this slot of the device map.
    Redirect(u32),
}

/// A stage's result: go on with a value, or stop with a verdict.
pub type Step<T> = Result<T, Verdict>;
