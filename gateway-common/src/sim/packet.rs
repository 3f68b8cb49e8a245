//! The buffer of one packet.

use std::cell::UnsafeCell;

/// What the kernel leaves of a frame at the least: an Ethernet header.
const MIN_FRAME_LEN: usize = 14;

/// A frame whose bytes are written through pointers taken from a shared reference.
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

    /// Moves the beginning, as [`PacketBuffer::adjust_head`](crate::packet::PacketBuffer::adjust_head) says.
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
        // SAFETY: a cell has the layout of what is in it, and nothing writes while this is read.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }
}
