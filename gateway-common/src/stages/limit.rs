//! What one connection may use, so that no consumer starves another. Rates are metered by the
//! generic cell rate algorithm (ITU-T I.371): a meter holds the time at which all that was let
//! through is paid for, and what would run further ahead of now than the burst allows is refused.

use core::ptr::NonNull;

use crate::{
    DropReason, Environment, Step, Turn,
    flow::Direction,
    maps::{Limits, Link, MOST_LINKS, NO_LINK_USAGE, Statistic, Usage},
};

/// A number of [`Usage`], which all CPUs share.
#[derive(Clone, Copy)]
struct Shared(NonNull<u64>);

/// A field of [`Usage`].
macro_rules! shared {
    ($usage:expr, $($field:tt)+) => {{
        let usage: NonNull<Usage> = $usage;
        // SAFETY: the environment's promise: a live entry; a field of it is not null.
        Shared(unsafe { NonNull::new_unchecked(&raw mut (*usage.as_ptr()).$($field)+) })
    }};
}

impl Shared {
    #[inline(always)]
    fn load(self) -> u64 {
        // SAFETY: in bounds of a live entry; volatile, as other CPUs write it.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn store(self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn add<E: Environment>(self, env: &E, amount: u64) {
        // SAFETY: as for `load`; 64-bit fields of map memory are aligned.
        unsafe { env.add(self.0, amount) }
    }
}

/// Pays for one more; says whether that was possible.
#[inline(always)]
fn take<E: Environment>(env: &E, meter: Shared, now: u64, cost: u64, burst: u64) -> bool {
    let paid = meter.load();
    if paid <= now {
        // Two CPUs that begin in the same moment pay once: one packet more after a pause.
        meter.store(now + cost);
        return true;
    }
    if paid - now >= burst {
        return false;
    }
    meter.add(env, cost);
    true
}

/// Whether the connection may open another flow.
#[inline(always)]
pub(super) fn new_flow<E: Environment>(env: &E, slot: u32) -> Step<()> {
    if env.link(slot).is_none_or(|link| link.limited == 0) {
        return Ok(());
    }
    let (Some(limits), Some(usage)) = (env.limits(slot), env.usage(slot)) else {
        return Ok(());
    };
    if limits.flows != 0 && shared!(usage, flows).load() >= limits.flows {
        return Err(Turn::drop(DropReason::FlowLimit, slot));
    }
    if limits.new_flow != 0 {
        let now = env.nanoseconds();
        let meter = shared!(usage, new_flow);
        if !take(env, meter, now, limits.new_flow, Limits::FLOW_BURST) {
            return Err(Turn::drop(DropReason::NewFlowRate, slot));
        }
    }
    Ok(())
}

/// Counts a flow that was opened.
#[inline(always)]
pub(super) fn opened<E: Environment>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        shared!(usage, flows).add(env, 1);
    }
}

/// Counts a flow that is gone.
#[inline(always)]
pub(super) fn closed<E: Environment>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        // The agent's correction may have come in between: never below nothing.
        let flows = shared!(usage, flows);
        if flows.load() > 0 {
            flows.add(env, u64::MAX);
        }
    }
}

/// Whether the connection may send a packet of so many bytes in this direction.
#[inline(always)]
pub(super) fn packet<E: Environment>(
    env: &E,
    slot: u32,
    direction: Direction,
    bytes: u16,
) -> Step<()> {
    match env.link(slot) {
        Some(link) => packet_of(env, &link, slot, direction, bytes),
        None => Ok(()),
    }
}

/// The same, for who has looked the link up.
#[inline(always)]
pub(super) fn packet_of<E: Environment>(
    env: &E,
    link: &Link,
    slot: u32,
    direction: Direction,
    bytes: u16,
) -> Step<()> {
    if link.limited == 0 {
        return Ok(());
    }
    let (Some(limits), Some(usage)) = (env.limits(slot), env.usage(slot)) else {
        return Ok(());
    };
    if limits.packet == 0 && limits.byte == 0 {
        return Ok(());
    }
    let now = env.nanoseconds();
    let (packets, octets) = match direction {
        Direction::ToService => (shared!(usage, packets[0]), shared!(usage, bytes[0])),
        Direction::ToConsumer => (shared!(usage, packets[1]), shared!(usage, bytes[1])),
    };
    let cost = (u64::from(bytes) * limits.byte) >> Limits::BYTE_SHIFT;
    let kept = (limits.packet == 0 || take(env, packets, now, limits.packet, Limits::PACKET_BURST))
        && (limits.byte == 0 || take(env, octets, now, cost, Limits::PACKET_BURST));
    if kept {
        Ok(())
    } else {
        Err(Turn::drop(DropReason::PacketRate, slot))
    }
}

/// Whose refusals are metered where.
#[inline(always)]
const fn refusals_of(link: u32) -> u32 {
    if link < MOST_LINKS {
        link
    } else {
        NO_LINK_USAGE
    }
}

/// Whether it is certain that no refusal may be sent now. Counts one that is not.
#[inline(always)]
pub(super) fn no_refusal<E: Environment>(env: &mut E, link: u32) -> bool {
    let cost = env.refusal_cost();
    let Some(usage) = env.usage(refusals_of(link)).filter(|_| cost != 0) else {
        return false;
    };
    let paid = shared!(usage, refusals).load();
    let spent = paid.saturating_sub(env.nanoseconds()) >= Limits::REFUSAL_BURST;
    if spent {
        env.count(Statistic::RefusalsSuppressed);
    }
    spent
}

/// Whether a refusal may be sent for this connection, or for none. A flood of packets is not
/// answered by a flood of resets (RFC 4443, section 2.4 (f); RFC 1812, section 4.3.2.8).
#[inline(always)]
pub(super) fn refusal<E: Environment>(env: &mut E, link: u32) -> bool {
    let cost = env.refusal_cost();
    if cost == 0 {
        return true;
    }
    let Some(usage) = env.usage(refusals_of(link)) else {
        return false;
    };
    let now = env.nanoseconds();
    let may = take(
        env,
        shared!(usage, refusals),
        now,
        cost,
        Limits::REFUSAL_BURST,
    );
    if !may {
        env.count(Statistic::RefusalsSuppressed);
    }
    may
}
