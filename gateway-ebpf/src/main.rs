//! The XDP program of the private link gateway: the entry point, and nothing that decides.
//!
//! The stages are in `gateway-common`. [`context`] and [`platform`] give them packet memory, helpers and maps, and
//! [`plgw`] carries their verdict out.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod config_maps;
mod context;
mod counters;
mod flow_tables;
mod maps;
mod platform;
mod subprograms;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use context::Xdp;
use gateway_common::{
    DropReason, Verdict,
    drop_reason::Attribution,
    maps::{ConfigMaps as _, Counters as _, NO_CONNECTION},
    process,
};

/// Handles one packet.
#[xdp(frags)]
fn plgw(ctx: XdpContext) -> u32 {
    let mut env = Xdp::new(ctx);
    match process(&mut env) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Reply => redirect_back(&mut env),
        Verdict::TcpReset(attribution) | Verdict::IcmpError(attribution) => {
            subprograms::log_reject(
                attribution.reason as u64,
                attribution.connection_slot.into(),
            );
            redirect_back(&mut env)
        }
        Verdict::Drop(attribution) => {
            subprograms::log_drop(
                attribution.reason as u64,
                attribution.connection_slot.into(),
            );
            xdp_action::XDP_DROP
        }
        Verdict::Redirect(slot) => redirect(&mut env, slot),
    }
}

/// Sends the packet back out through the attachment that it came in by.
///
/// Not by `XDP_TX`: a veth whose far end has no XDP program of its own leaves such packets lying
/// (`veth_xdp_flush` in drivers/net/veth.c wakes the receiver only if it has one).
#[inline(always)]
fn redirect_back(env: &mut Xdp) -> u32 {
    // Looked up once more: only the gateway's own answers pay for it. No slot has the other number.
    let slot = env
        .attachment()
        .map_or(u32::MAX, |attachment| attachment.slot);
    redirect(env, slot)
}

/// Sends the packet out through an attachment.
#[inline(always)]
fn redirect(env: &mut Xdp, slot: u32) -> u32 {
    maps::TX_PORTS.redirect(slot, 0).unwrap_or_else(|_| {
        env.count_drop(Attribution::new(
            DropReason::EgressUnavailable,
            NO_CONNECTION,
        ));
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
