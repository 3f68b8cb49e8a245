//! Frames that the agent itself sends: address probes, announcements, solicitations of neighbours, and resets for
//! revoked flows. The data path sends frames only in response to packets.

pub mod frames;
mod socket;

pub use socket::PacketSocket;
