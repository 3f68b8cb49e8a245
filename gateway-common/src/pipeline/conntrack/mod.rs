//! Connection tracking: the look-up of a packet's flow, and the state that the packet changes.
//!
//! ```text
//!   lookup         the packet's flow; has it ended?
//!     │
//!     ├─► half_open    confirmation by both sides
//!     └─► tcp          FIN, RST and acknowledgements of established flows
//!            │
//!            ▼
//!   life           establishing, closing and removal of a flow, and the counts of flows
//!   calls          functions of the flow table that the verifier checks by themselves
//!   return_path    the neighbour that replies go to
//!   reclaim        places and ports of closed and expired flows
//! ```
//!
//! See [`flow`](crate::flow) for the states.

pub(crate) mod calls;
pub(crate) mod half_open;
pub(crate) mod life;
pub(crate) mod lookup;
pub(crate) mod reclaim;
pub(crate) mod return_path;
pub(crate) mod tcp;
