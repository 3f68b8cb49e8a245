//! The context of an XDP program, as the kernel passes it.

use aya_ebpf::programs::XdpContext;

/// The platform of one packet in XDP.
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
    /// Returns the start of the linear data. The load is volatile: the kernel turns the load of the 32-bit field into
    /// that of a pointer, and a copy of the field's 32 bits would not be a pointer.
    #[inline(always)]
    pub(crate) fn data(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (&raw const (*self.ctx.ctx).data).read_volatile() as usize }
    }

    /// Returns the end of the linear data.
    #[inline(always)]
    pub(crate) fn data_end(&self) -> usize {
        // SAFETY: as for `data`.
        unsafe { (&raw const (*self.ctx.ctx).data_end).read_volatile() as usize }
    }

    /// Returns the index of the interface that the packet arrived on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }
}
