//! Frames that were redirected and did not leave: the driver of the egress interface, or the far end of a veth, did
//! not take them. The program that redirected a frame never learns that, and most drivers do not count it, but the
//! kernel has tracepoints for it.
//!
//! Both tracepoints are those of the whole host. A frame is counted only if it passed between two attachments, and in
//! the agent's network namespace, since indexes of interfaces repeat in others.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext,
};
use aya_log_ebpf::info;
use gateway_common::{DropReason, maps::attachment_index};

use crate::{
    counters::count_attachment_drops,
    maps::{ATTACH_OVERFLOW, ATTACHMENTS, DEVICE_IFINDEX, DEVICE_NETNS, NETNS_INODE, OWN_NETNS},
};

/// Types of the maps whose entries are devices (linux/bpf.h).
const DEVICE_MAPS: [u32; 2] = [14, 25];

/// Counts the frames of a bulk that the driver did not take.
///
/// Arguments: `from_dev`, `to_dev`, `sent`, `drops`, `err`. The tracepoint is hit for each bulk of up to 16 frames, so
/// nothing else is done before the comparison.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
pub(crate) fn plgw_xmit(ctx: RawTracePointContext) -> i32 {
    let drops: i32 = ctx.arg(3);
    if drops > 0 {
        let error: i32 = ctx.arg(4);
        count_failures(&ctx, ctx.arg(1), drops as u64, error);
    }
    0
}

/// Counts a frame that the kernel refused to hand to the driver.
///
/// Arguments: `dev`, `xdp`, `tgt`, `err`, `map_type`, `map_id`, `index`. The target is an entry of a device map, which
/// begins with the pointer to the device (`struct bpf_dtab_netdev`).
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub(crate) fn plgw_redirect(ctx: RawTracePointContext) -> i32 {
    let (map_type, target): (u32, *const u64) = (ctx.arg(4), ctx.arg(2));
    if DEVICE_MAPS.contains(&map_type)
        && !target.is_null()
        // SAFETY: the helper checks the address.
        && let Ok(device) = unsafe { bpf_probe_read_kernel(target) }
    {
        let error: i32 = ctx.arg(3);
        count_failures(&ctx, device as *const u8, 1, error);
    }
    0
}

/// Counts frames from the device that the tracepoint names first to another one, if both are attachments. Logs them if
/// the agent has enabled that: the packet log does not have them, since the tracepoints have no packet.
#[inline(always)]
fn count_failures(ctx: &RawTracePointContext, to: *const u8, frames: u64, error: i32) {
    let from = attachment_ifindex(ctx.arg(0));
    if let (Some(from), Some(to)) = (from, attachment_ifindex(to)) {
        count_attachment_drops(to, DropReason::TransmitFailed, frames);
        info!(
            ctx,
            "packet: dropped reason=transmit_failed from_ifindex={} to_ifindex={} frames={} error={}",
            from,
            to,
            frames,
            error
        );
    }
}

/// Returns the index of a device of the agent's network namespace that is an attachment.
#[inline(always)]
fn attachment_ifindex(device: *const u8) -> Option<u32> {
    // SAFETY: the helper checks the addresses, and a wrong offset gives a number that is no attachment's.
    let (ifindex, netns): (u32, u32) = unsafe {
        let at = |offset: u32| device.wrapping_add(offset as usize);
        let netns = bpf_probe_read_kernel(at(DEVICE_NETNS.load()).cast::<u64>()).ok()?;
        let inode = (netns as *const u8).wrapping_add(NETNS_INODE.load() as usize);
        (
            bpf_probe_read_kernel(at(DEVICE_IFINDEX.load()).cast()).ok()?,
            bpf_probe_read_kernel(inode.cast()).ok()?,
        )
    };
    if netns != OWN_NETNS.load() {
        return None;
    }
    let direct = ATTACHMENTS.get(attachment_index(ifindex))?;
    let is_attached = direct.ifindex == ifindex
        // SAFETY: the map has no preallocation, so an element stays valid until the program returns.
        || unsafe { ATTACH_OVERFLOW.get(ifindex) }.is_some();
    is_attached.then_some(ifindex)
}
