//! Packet slices: ranges of a packet whose bounds have been checked.

use core::ptr::NonNull;

use bytemuck::Pod;

use crate::packet::PacketBuffer;

/// A range of packet memory whose length was checked when it was created.
///
/// Valid until [`PacketBuffer::resize`] or [`PacketBuffer::adjust_head`] is called.
#[derive(Clone, Copy, Debug)]
pub struct PacketSlice(NonNull<u8>);

impl PacketSlice {
    /// Returns the `length` bytes at `offset`, or nothing if the linear data ends before.
    #[inline(always)]
    pub fn at<B: PacketBuffer>(buffer: &B, offset: usize, length: usize) -> Option<Self> {
        buffer.packet_ptr(offset, length).map(Self)
    }

    /// Loads the field at `offset` of the slice.
    ///
    /// # Safety
    /// The field lies within the length that was checked.
    #[inline(always)]
    pub(super) unsafe fn load<T: Pod>(self, offset: usize) -> T {
        // SAFETY: in bounds by the caller's promise. On BPF one wide load is required, and the verifier allows it on
        // packet memory at any offset. Elsewhere the alignment is unknown.
        unsafe {
            let field = self.0.as_ptr().add(offset).cast::<T>();
            if cfg!(target_arch = "bpf") {
                field.read()
            } else {
                field.read_unaligned()
            }
        }
    }

    /// Stores a field at `offset` of the slice.
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

/// The first bytes of a frame, whose length is checked once for all headers in them.
#[derive(Clone, Copy, Debug)]
pub struct LinearData {
    start: NonNull<u8>,
    length: usize,
}

impl LinearData {
    /// Returns the first `length` bytes, or nothing if the linear data ends before.
    #[inline(always)]
    pub fn at<B: PacketBuffer>(buffer: &B, length: usize) -> Option<Self> {
        let start = buffer.packet_ptr(0, length)?;
        Some(Self { start, length })
    }

    /// Returns the `length` bytes at `offset` if they are within. This costs nothing if both numbers are constants.
    #[inline(always)]
    pub(super) fn slice(self, offset: usize, length: usize) -> Option<PacketSlice> {
        if offset + length > self.length {
            return None;
        }
        // SAFETY: within the bytes that were checked, so the pointer is not null either.
        Some(PacketSlice(unsafe { self.start.add(offset) }))
    }
}

/// Returns true if a field lies within a header.
pub(super) const fn field_fits(offset: usize, size: usize, length: usize) -> bool {
    offset + size <= length
}
