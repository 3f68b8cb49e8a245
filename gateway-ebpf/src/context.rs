//! The context of one packet.

use aya_ebpf::programs::XdpContext;

/// One packet in XDP.
pub(crate) struct Xdp {
    pub(crate) ctx: XdpContext,
}

impl Xdp {
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }
}

impl Xdp {
    /// Where the frame's first buffer starts. Volatile: the kernel makes the field a pointer as it is
    /// loaded, and a copy of the field's 32 bits would be none.
    #[inline(always)]
    pub(crate) fn data(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (&raw const (*self.ctx.ctx).data).read_volatile() as usize }
    }

    /// Where it ends.
    #[inline(always)]
    pub(crate) fn data_end(&self) -> usize {
        // SAFETY: as for `data`.
        unsafe { (&raw const (*self.ctx.ctx).data_end).read_volatile() as usize }
    }
}
