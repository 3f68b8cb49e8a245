//! Packet log: records of packets that were dropped or rejected, which the data path writes and the agent names.

use bytemuck::{Pod, Zeroable};

/// Number of the frame's first bytes in a record: enough for the packet that an ICMPv6 error quotes.
pub const LOGGED_BYTES: usize = 128;

/// Record of a packet that was dropped or rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LoggedPacket {
    /// Number of the [`DropReason`](crate::DropReason).
    pub reason: u32,
    /// A [`LoggedVerdict`].
    pub verdict: u32,
    /// Connection slot, or [`NO_CONNECTION`](crate::maps::NO_CONNECTION).
    pub connection_slot: u32,
    /// Index of the interface where the packet arrived.
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub frame_len: u32,
    /// Number of bytes of the frame in `bytes`.
    pub captured_len: u32,
    /// First bytes of the frame. A rejected packet was replaced by the reset or the ICMP error, whose bytes these are.
    pub bytes: [u8; LOGGED_BYTES],
}

/// Verdict on a packet in the packet log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LoggedVerdict {
    /// The packet was dropped.
    Drop = 0,
    /// The packet was replaced by a TCP reset to its sender.
    TcpReset = 1,
    /// The packet was replaced by an ICMP error to its sender.
    IcmpError = 2,
}
