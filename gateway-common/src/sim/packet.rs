//! The buffer of one packet.

use std::cell::UnsafeCell;

/// Minimum length of a frame that the kernel leaves when it moves the start: an Ethernet header.
const MIN_FRAME_LEN: usize = 14;

/// A frame whose bytes are written through pointers that were taken from a shared reference.
pub(crate) struct FrameBuffer {
    pub(crate) bytes: Box<[UnsafeCell<u8>]>,
    pub(crate) length: usize,
}

impl FrameBuffer {
    pub(crate) fn new(frame: &[u8]) -> Self {
        Self {
            bytes: frame.iter().copied().map(UnsafeCell::new).collect(),
            length: frame.len(),
        }
    }

    pub(crate) fn resize(&mut self, length: usize) {
        let mut bytes = self.bytes().to_vec();
        bytes.resize(length, 0);
        *self = Self::new(&bytes);
    }

    /// Moves the start of the frame: see [`PacketBuffer::adjust_head`](crate::packet::PacketBuffer::adjust_head).
    pub(crate) fn adjust_head(&mut self, delta: i32) -> bool {
        let Ok(distance) = usize::try_from(delta.unsigned_abs()) else {
            return false;
        };
        let mut bytes = self.bytes().to_vec();
        if delta < 0 {
            bytes.splice(0..0, vec![0; distance]);
        } else if bytes.len() >= distance + MIN_FRAME_LEN {
            bytes.drain(..distance);
        } else {
            return false;
        }
        *self = Self::new(&bytes);
        true
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let cells = &self.bytes[..self.length];
        // SAFETY: a cell has the layout of its value, and nothing writes while the bytes are read.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }
}
