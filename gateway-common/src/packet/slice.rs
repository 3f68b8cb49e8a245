//! Bytes of a packet whose bounds were checked.

use core::ptr::NonNull;

use bytemuck::Pod;

use crate::packet::PacketBuffer;

/// A stretch of packet memory whose length was checked when it was taken.
///
/// Valid until [`PacketBuffer::resize`] or [`PacketBuffer::adjust_head`] is called.
#[derive(Clone, Copy, Debug)]
pub struct PacketSlice(NonNull<u8>);

impl PacketSlice {
    /// The `length` bytes at `offset`, or nothing if the packet ends before.
    #[inline(always)]
    pub fn at<B: PacketBuffer>(buffer: &B, offset: usize, length: usize) -> Option<Self> {
        buffer.packet_ptr(offset, length).map(Self)
    }

    /// Loads the field at `offset` of the window.
    ///
    /// # Safety
    /// The field lies within the length that was checked.
    #[inline(always)]
    pub(super) unsafe fn load<T: Pod>(self, offset: usize) -> T {
        // SAFETY: in bounds by the caller's promise. On BPF one wide load is what is wanted, and
        // the verifier allows it on packet memory at any offset; elsewhere alignment is unknown.
        unsafe {
            let field = self.0.as_ptr().add(offset).cast::<T>();
            if cfg!(target_arch = "bpf") {
                field.read()
            } else {
                field.read_unaligned()
            }
        }
    }

    /// Stores a field at `offset` of the window.
    ///
    /// # Safety
    /// The field lies within the length that was checked.
    #[inline(always)]
    pub(super) unsafe fn store<T: Pod>(self, offset: usize, value: T) {
        // SAFETY: as for `load`.
        unsafe {
            let field = self.0.as_ptr().add(offset).cast::<T>();
            if cfg!(target_arch = "bpf") {
                field.write(value);
            } else {
                field.write_unaligned(value);
            }
        }
    }
}

/// The first bytes of a frame, whose length was checked once for all headers in them.
#[derive(Clone, Copy, Debug)]
pub struct LinearData {
    start: NonNull<u8>,
    length: usize,
}

impl LinearData {
    /// The first `length` bytes; nothing if the frame's first buffer ends before.
    #[inline(always)]
    pub fn at<B: PacketBuffer>(buffer: &B, length: usize) -> Option<Self> {
        let start = buffer.packet_ptr(0, length)?;
        Some(Self { start, length })
    }

    /// The `length` bytes at `offset`, if they are within. Where both are constants this costs nothing.
    #[inline(always)]
    pub(super) fn slice(self, offset: usize, length: usize) -> Option<PacketSlice> {
        if offset + length > self.length {
            return None;
        }
        // SAFETY: within the bytes that were checked, so not null either.
        Some(PacketSlice(unsafe { self.start.add(offset) }))
    }
}

/// Whether a field lies within a header.
pub(super) const fn field_fits(offset: usize, size: usize, length: usize) -> bool {
    offset + size <= length
}
