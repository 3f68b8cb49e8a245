//! Frames that the agent itself receives: packet sockets with a filter in the kernel, so that other traffic does not
//! wake the agent.

mod filter;
mod socket;

pub use filter::{
    ArpFilter, Field, FieldTest, FrameFilter, MldQueryFilter, NeighbourDiscoveryFilter, Width,
};
pub use socket::{ReceiveSocket, ReceivedFrame};
