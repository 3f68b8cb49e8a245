//! The XDP program of the private link gateway: the entry point, and nothing that decides.
//!
//! The stages are in `gateway-common`; [`environment`] gives them packet memory and maps, and the
//! verdict they return is carried out here.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod environment;
mod maps;
mod parts;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use environment::Xdp;
use gateway_common::{DropReason, Environment as _, Verdict, maps::NO_LINK, process};

/// Handles one packet.
#[xdp(frags)]
fn gateway(ctx: XdpContext) -> u32 {
    let mut env = Xdp::new(ctx);
    match process(&mut env) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Reply => send_back(&mut env),
        Verdict::Reset(reason, link) | Verdict::Error(reason, link) => {
            parts::log_refusal(reason as u64, link.into());
            send_back(&mut env)
        }
        Verdict::Drop(reason, link) => {
            parts::log_drop(reason as u64, link.into());
            xdp_action::XDP_DROP
        }
        Verdict::Redirect(slot) => send(&mut env, slot),
    }
}

/// Sends the packet back out through the attachment that it came in by.
///
/// Not by `XDP_TX`: a veth whose far end has no XDP program of its own leaves such packets lying
/// (`veth_xdp_flush` in drivers/net/veth.c wakes the receiver only if it has one).
#[inline(always)]
fn send_back(env: &mut Xdp) -> u32 {
    // Looked up once more: only the gateway's own answers pay for it. No slot has the other number.
    let slot = env
        .attachment()
        .map_or(u32::MAX, |attachment| attachment.slot);
    send(env, slot)
}

/// Sends the packet out through an attachment.
#[inline(always)]
fn send(env: &mut Xdp, slot: u32) -> u32 {
    maps::DEVICES.redirect(slot, 0).unwrap_or_else(|_| {
        env.count_drop(DropReason::EgressGone, NO_LINK);
        xdp_action::XDP_DROP
    })
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
