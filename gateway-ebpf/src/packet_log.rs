//! The packet log: a record of each packet that is dropped or rejected, for the agent.

use core::{hint::black_box, mem::offset_of};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use gateway_common::maps::{LOGGED_BYTES, LoggedPacket};

use crate::maps::PACKET_LOG;

/// Writes a record of the packet. A record is lost while the agent can't keep up.
///
/// # Safety
/// `ctx` is the kernel's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn log_packet(
    ctx: *mut xdp_md,
    verdict: u64,
    reason: u64,
    connection_slot: u64,
) -> u64 {
    // SAFETY: the kernel's context.
    let (frame_len, ifindex) = unsafe { (bpf_xdp_get_buff_len(ctx), (*ctx).ingress_ifindex) };
    if frame_len == 0 {
        return 0;
    }
    let Some(mut entry) = PACKET_LOG.reserve::<LoggedPacket>(0) else {
        return 0;
    };
    // `black_box` keeps the compiler from removing the mask, which gives the verifier the bounds of the length.
    const { assert!(LOGGED_BYTES.is_power_of_two()) };
    let captured_len =
        (black_box((frame_len as usize).min(LOGGED_BYTES) - 1) & (LOGGED_BYTES - 1)) + 1;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is memory of the ring buffer, which belongs to this program until it is submitted. The helper
    // writes at most as many bytes as the field has. All other fields are written, and the agent reads no more bytes
    // than were captured.
    unsafe {
        (*record).reason = reason as u32;
        (*record).verdict = verdict as u32;
        (*record).connection_slot = connection_slot as u32;
        (*record).ifindex = ifindex;
        (*record).frame_len = frame_len as u32;
        let bytes = record.byte_add(offset_of!(LoggedPacket, bytes)).cast();
        let failed = bpf_xdp_load_bytes(ctx, 0, bytes, captured_len as u32) != 0;
        (*record).captured_len = if failed { 0 } else { captured_len as u32 };
    }
    entry.submit(0);
    0
}
