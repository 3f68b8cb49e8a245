//! The buffer that holds a frame.

use core::ptr::NonNull;

use crate::checksum::Sum;

/// The frame of one packet: in the kernel an XDP buffer, in tests a vector.
///
/// Every [`PacketSlice`](crate::packet::PacketSlice) of the frame is invalid after [`resize`](Self::resize) and
/// [`adjust_head`](Self::adjust_head).
pub trait PacketBuffer {
    /// Returns the frame's length in bytes.
    fn frame_len(&self) -> usize;

    /// Returns whether the frame has at least `length` bytes.
    fn has_len(&self, length: usize) -> bool;

    /// Returns a pointer to `length` bytes of the frame at `offset`, or nothing if the linear data ends before.
    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>>;

    /// Makes the frame `length` bytes long by trimming it or appending zeros. Returns true on success.
    fn resize(&mut self, length: usize) -> bool;

    /// Moves the start of the frame by `delta` bytes. A negative number adds bytes with undefined content. Returns true
    /// on success.
    fn adjust_head(&mut self, delta: i32) -> bool;

    /// Returns the one's complement sum over `length` bytes of the frame at `offset`, or nothing if the frame ends
    /// before or the length exceeds the maximum that can be summed.
    fn partial_checksum(&mut self, offset: usize, length: usize) -> Option<Sum>;
}
