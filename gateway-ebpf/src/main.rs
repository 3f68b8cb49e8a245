//! The XDP program of the private link gateway. It decides nothing.
//!
//! ```text
//!   kernel ──► plgw ──► gateway_common::process ──► verdict ──► XDP action
//!                              │
//!                              ▼
//!                       Xdp: the Platform
//!                       ├── context        packet memory
//!                       ├── config_maps    configuration
//!                       ├── flow_tables    flows and fragment records
//!                       ├── counters       drops, connections, statistics
//!                       ├── platform       clock, loops, shared state
//!                       └── subprograms    global functions
//!
//!   a driver refuses a frame ──► transmit_failures
//! ```
//!
//! The stages are in `gateway-common`. The modules here give them packet memory, helpers and maps, and [`plgw`] carries
//! out their verdict.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod config_maps;
mod context;
mod counters;
mod flow_calls;
mod flow_tables;
mod maps;
mod packet_buffer;
mod packet_log;
mod platform;
mod subprograms;
mod transmit_failures;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use context::Xdp;
use gateway_common::{
    DropReason, Verdict,
    drop_reason::Attribution,
    maps::{ConfigMaps as _, Counters as _, LoggedVerdict, NO_CONNECTION},
    process,
};

/// Processes one packet and returns the XDP action that carries out its verdict.
#[xdp(frags)]
fn plgw(ctx: XdpContext) -> u32 {
    let mut env = Xdp::new(ctx);
    match process(&mut env) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Reply => redirect_back(&mut env),
        Verdict::TcpReset(attribution) => {
            log(&env, LoggedVerdict::TcpReset, attribution);
            redirect_back(&mut env)
        }
        Verdict::IcmpError(attribution) => {
            log(&env, LoggedVerdict::IcmpError, attribution);
            redirect_back(&mut env)
        }
        Verdict::Drop(attribution) => {
            log(&env, LoggedVerdict::Drop, attribution);
            xdp_action::XDP_DROP
        }
        Verdict::Redirect(slot) => redirect(&mut env, slot),
    }
}

/// Redirects the packet to the interface that it arrived on.
///
/// `XDP_TX` does not serve: a veth whose peer has no XDP program of its own does not deliver such packets
/// (`veth_xdp_flush` in drivers/net/veth.c wakes the receiver only if it has one).
#[inline(always)]
fn redirect_back(env: &mut Xdp) -> u32 {
    // Looked up again, which only the gateway's own replies pay for. No slot has the number `u32::MAX`.
    let slot = env
        .attachment()
        .map_or(u32::MAX, |attachment| attachment.slot);
    redirect(env, slot)
}

/// Redirects the packet to an attachment. Counts a drop if the slot has no device.
#[inline(always)]
fn redirect(env: &mut Xdp, slot: u32) -> u32 {
    maps::TX_PORTS.redirect(slot, 0).unwrap_or_else(|_| {
        let attribution = Attribution::new(DropReason::EgressUnavailable, NO_CONNECTION);
        env.count_drop(attribution);
        log(env, LoggedVerdict::Drop, attribution);
        xdp_action::XDP_DROP
    })
}

/// Logs a packet, if the agent has enabled that.
#[inline(always)]
fn log(env: &Xdp, verdict: LoggedVerdict, attribution: Attribution) {
    if maps::LOG_PACKETS.load() == 0 {
        return;
    }
    // SAFETY: the kernel's context.
    unsafe {
        packet_log::log_packet(
            env.ctx.ctx,
            verdict as u64,
            attribution.reason as u64,
            attribution.connection_slot.into(),
        );
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
