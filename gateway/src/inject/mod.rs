//! Frames that the agent itself sends: probes and announcements of addresses, and resets of flows
//! that were cut. The data path only ever answers.

pub mod frames;
mod socket;

pub use socket::PacketSocket;
