//! The packet buffer in the kernel: direct access to the linear data, and BPF helpers for the rest.

use core::ptr::NonNull;

use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use gateway_common::{checksum::Sum, packet::PacketBuffer};

use crate::{context::Xdp, subprograms};

impl PacketBuffer for Xdp {
    #[inline(always)]
    fn frame_len(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn has_len(&self, length: usize) -> bool {
        // A frame of several buffers has its headers in the linear data, and is longer than that.
        self.data() + length <= self.data_end() || length <= self.frame_len()
    }

    #[inline(always)]
    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let start = self.data() + offset;
        if start + length > self.data_end() {
            return None;
        }
        // SAFETY: packet memory is never at address 0.
        Some(unsafe { NonNull::new_unchecked(start as *mut u8) })
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> bool {
        let delta = length as i32 - self.frame_len() as i32;
        // SAFETY: the helper checks the length; packet slices taken before are not used again.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the helper checks the headroom; packet slices taken before are not used again.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn partial_checksum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        // SAFETY: the kernel's context.
        match unsafe { subprograms::partial_checksum(self.ctx.ctx, offset as u64, length as u64) } {
            subprograms::NO_CHECKSUM => None,
            partial => Some(Sum::from_partial(partial as u32)),
        }
    }
}
