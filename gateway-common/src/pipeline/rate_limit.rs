//! Rate limits: bounds on the flows, packets and bytes of each connection, so that no consumer starves another.
//!
//! Rates are metered by the generic cell rate algorithm (GCRA, ITU-T I.371). Each meter holds a theoretical arrival
//! time (TAT): the time at which everything that was admitted so far is paid for. A packet conforms if TAT − now is
//! less than the burst. It then sets TAT to max(TAT, now) + cost.

use core::ptr::NonNull;

use crate::{
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowCount, FlowTableUsage, FlowTables},
    maps::{
        Attachment, Connection, ConnectionUsage, Limits, RejectMeters, Statistic,
        reject_meters_index,
    },
    platform::{Platform, PlatformFor},
    subprogram::{Exit, StageResult},
};

/// A field of [`ConnectionUsage`] or [`RejectMeters`], which all CPUs share.
#[derive(Clone, Copy)]
pub(crate) struct AtomicField(NonNull<u64>);

/// Returns a field of [`ConnectionUsage`], or of another type if one is named.
macro_rules! atomic_field {
    ($type:ty, $usage:expr, $($field:tt)+) => {{
        let usage: NonNull<$type> = $usage;
        // SAFETY: the platform promises a live entry; a field of it is not null.
        AtomicField(unsafe {
            NonNull::new_unchecked((&raw mut (*usage.as_ptr()).$($field)+).cast::<u64>())
        })
    }};
    ($usage:expr, $($field:tt)+) => {
        atomic_field!(ConnectionUsage, $usage, $($field)+)
    };
}

impl AtomicField {
    #[inline(always)]
    fn load(self) -> u64 {
        // SAFETY: in bounds of a live entry; volatile, since other CPUs write it.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Returns the number of flows of a field that holds a [`FlowCount`].
    #[inline(always)]
    fn count(self) -> u64 {
        FlowCount::from_bits(self.load()).get()
    }

    #[inline(always)]
    fn store(self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn add<E: Platform>(self, env: &E, amount: u64) {
        // SAFETY: as for `load`; 64-bit fields of map memory are aligned.
        unsafe { env.atomic_add(self.0, amount) }
    }
}

/// Charges a meter for one packet or flow. Returns true if it conforms to the rate.
#[inline(always)]
fn charge<E: Platform>(env: &E, meter: AtomicField, now: u64, cost: u64, burst: u64) -> bool {
    let tat = meter.load();
    if tat <= now {
        // Two CPUs that find the meter idle at the same time are charged once: one more packet after a pause.
        meter.store(now + cost);
        return true;
    }
    if tat - now >= burst {
        return false;
    }
    meter.add(env, cost);
    true
}

/// Checks whether the connection may open another flow.
#[inline(always)]
pub(crate) fn check_new_flow<E: Platform>(env: &E, slot: u32) -> StageResult<()> {
    if env
        .connection(slot)
        .is_none_or(|connection| connection.has_limits == 0)
    {
        return Ok(());
    }
    let (Some(limits), Some(usage)) = (env.limits(slot), env.usage(slot)) else {
        return Ok(());
    };
    if limits.max_flows != 0 && atomic_field!(usage, flows).count() >= limits.max_flows {
        return Err(Exit::drop(DropReason::FlowLimit, slot));
    }
    if limits.new_flow_cost != 0 {
        let now = env.now_nanoseconds();
        let meter = atomic_field!(usage, new_flow_meter);
        if !charge(env, meter, now, limits.new_flow_cost, Limits::FLOW_BURST) {
            return Err(Exit::drop(DropReason::NewFlowRate, slot));
        }
    }
    Ok(())
}

/// Checks whether the connection may have another flow in the table: it has not used up its share.
///
/// The share is a multiple of the free part of the table ("dynamic thresholds", Choudhury and Hahne 1998). The more the
/// connections use, the less each may use, and some part stays free for those that use little. Only established flows
/// count, since a new flow may take the place of any other.
#[inline(always)]
pub(crate) fn check_share<F: Family, E: PlatformFor<F>>(env: &E, slot: u32) -> StageResult<()> {
    match share_excess::<F, E>(env, slot) {
        Some(reason) => Err(Exit::drop(reason, slot)),
        None => Ok(()),
    }
}

/// Returns the reason why the connection may have no other established flow, or nothing if it may.
#[inline(always)]
pub(crate) fn share_excess<F: Family, E: PlatformFor<F>>(env: &E, slot: u32) -> Option<DropReason> {
    let (usage, table) = (env.usage(slot)?, FlowTables::<F>::flow_table_usage(env)?);
    let free = env
        .flow_table_size()
        .saturating_sub(established_flows(table).count());
    if free == 0 {
        return Some(DropReason::FlowTableFull);
    }
    let share = (free * env.flow_table_share()) >> SHARE_SHIFT;
    (atomic_field!(usage, established).count() > share).then_some(DropReason::FlowTableShare)
}

/// Number of fractional bits of a connection's share of the flow table, as a multiple of the free part.
pub const SHARE_SHIFT: u32 = 8;

/// Counts a flow that was opened.
#[inline(always)]
pub(crate) fn flow_opened<E: Platform>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        count_up(env, atomic_field!(usage, flows));
    }
}

/// Counts a flow that was established.
#[inline(always)]
pub(crate) fn flow_established<E: Platform>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        count_up(env, atomic_field!(usage, established));
    }
}

/// Counts a flow that was closed or removed.
#[inline(always)]
pub(crate) fn flow_closed<E: Platform>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        count_down(env, atomic_field!(usage, flows));
    }
}

/// Counts a flow as no longer established.
#[inline(always)]
pub(crate) fn flow_unestablished<E: Platform>(env: &E, slot: u32) {
    if let Some(usage) = env.usage(slot) {
        count_down(env, atomic_field!(usage, established));
    }
}

/// Adds one to a count.
#[inline(always)]
pub(crate) fn count_up<E: Platform>(env: &E, count: AtomicField) {
    count.add(env, FlowCount::ONE_MORE);
}

/// Subtracts one from a count. The agent may correct the count at the same time, so it is never decreased below zero.
#[inline(always)]
pub(crate) fn count_down<E: Platform>(env: &E, count: AtomicField) {
    for _ in 0..MAX_EXCHANGES {
        let present = count.load();
        if FlowCount::from_bits(present).get() == 0 {
            return;
        }
        // SAFETY: as for `AtomicField::load`; written by atomic operations only.
        if unsafe { env.compare_exchange(count.0, present, present - 1) } == present {
            return;
        }
    }
    // Other CPUs win every attempt, so the count is far from zero.
    count.add(env, u64::MAX);
}

/// Attempts to subtract from a count that other CPUs change at the same time.
const MAX_EXCHANGES: u32 = 4;

/// Returns the number of established flows in a flow table.
#[inline(always)]
pub(crate) const fn established_flows(usage: NonNull<FlowTableUsage>) -> AtomicField {
    // SAFETY: the platform promises a live entry; a field of it is not null.
    AtomicField(unsafe { NonNull::new_unchecked((&raw mut (*usage.as_ptr()).established).cast()) })
}

/// Returns the number of buckets of a flow table that were swept.
#[inline(always)]
const fn swept_buckets(usage: NonNull<FlowTableUsage>) -> AtomicField {
    // SAFETY: as for `established_flows`.
    AtomicField(unsafe { NonNull::new_unchecked(&raw mut (*usage.as_ptr()).swept) })
}

/// Returns the number of buckets that were swept since the table was made.
#[inline(always)]
pub(crate) fn load_swept(usage: NonNull<FlowTableUsage>) -> u64 {
    swept_buckets(usage).load()
}

/// Claims the sweep of the next buckets. Returns true if no other CPU has claimed them.
#[inline(always)]
pub(crate) fn claim_sweep<E: Platform>(
    env: &E,
    usage: NonNull<FlowTableUsage>,
    from: u64,
    to: u64,
) -> bool {
    // SAFETY: in bounds of a live entry, aligned, and written only by atomic operations.
    unsafe { env.compare_exchange(swept_buckets(usage).0, from, to) == from }
}

/// Looks up the connection and checks whether it may send a packet of this length in this direction.
#[inline(always)]
pub(crate) fn lookup_and_check_packet<E: Platform>(
    env: &E,
    slot: u32,
    direction: Direction,
    bytes: u16,
) -> StageResult<()> {
    match env.connection(slot) {
        Some(connection) => check_packet(env, &connection, slot, direction, bytes),
        None => Ok(()),
    }
}

/// Checks whether a connection may send a packet of this length in this direction.
#[inline(always)]
pub(crate) fn check_packet<E: Platform>(
    env: &E,
    connection: &Connection,
    slot: u32,
    direction: Direction,
    bytes: u16,
) -> StageResult<()> {
    if connection.has_limits == 0 {
        return Ok(());
    }
    let (Some(limits), Some(usage)) = (env.limits(slot), env.usage(slot)) else {
        return Ok(());
    };
    if limits.packet_cost == 0 && limits.byte_cost == 0 {
        return Ok(());
    }
    let now = env.now_nanoseconds();
    let (packet_meter, byte_meter) = match direction {
        Direction::ToService => (
            atomic_field!(usage, packet_meters[0]),
            atomic_field!(usage, byte_meters[0]),
        ),
        Direction::ToConsumer => (
            atomic_field!(usage, packet_meters[1]),
            atomic_field!(usage, byte_meters[1]),
        ),
    };
    let cost = (u64::from(bytes) * limits.byte_cost) >> Limits::BYTE_SHIFT;
    let conforms = (limits.packet_cost == 0
        || charge(
            env,
            packet_meter,
            now,
            limits.packet_cost,
            Limits::PACKET_BURST,
        ))
        && (limits.byte_cost == 0 || charge(env, byte_meter, now, cost, Limits::PACKET_BURST));
    if conforms {
        Ok(())
    } else {
        Err(Exit::drop(DropReason::PacketRate, slot))
    }
}

/// A budget for rejects: that of a connection, or that of an attachment for packets of no connection. Providers have
/// different attachments, so what is sent to the SNAT addresses of one costs no other.
///
/// Refusals and path MTU errors have meters of their own.
#[derive(Clone, Copy)]
pub(crate) struct RejectBudget(u32);

impl RejectBudget {
    /// Returns the budget for a packet that arrived at the attachment.
    #[inline(always)]
    pub(crate) const fn new(attachment: &Attachment, connection_slot: u32) -> Self {
        Self(reject_meters_index(connection_slot, attachment.slot))
    }

    /// Returns true if no refusal can be sent now, and counts it as suppressed.
    #[inline(always)]
    pub(crate) fn is_spent<E: Platform>(self, env: &mut E) -> bool {
        let cost = env.reject_cost();
        let Some(meters) = env.reject_meters(self.0).filter(|_| cost != 0) else {
            return false;
        };
        let tat = atomic_field!(RejectMeters, meters, refusals).load();
        let is_spent = tat.saturating_sub(env.now_nanoseconds()) >= Limits::REJECT_BURST;
        if is_spent {
            env.count(Statistic::RejectsSuppressed);
        }
        is_spent
    }

    /// Returns true if a refusal may be sent: a TCP reset, or an ICMP error other than about a packet's size. A flood of
    /// packets is not answered by a flood of rejects (RFC 4443, section 2.4 (f); RFC 1812, section 4.3.2.8).
    #[inline(always)]
    pub(crate) fn may_refuse<E: Platform>(self, env: &mut E) -> bool {
        self.charge(env, false)
    }

    /// Returns true if an ICMP error about a packet's size may be sent.
    #[inline(always)]
    pub(crate) fn may_report_mtu<E: Platform>(self, env: &mut E) -> bool {
        self.charge(env, true)
    }

    /// Charges one of the meters for a reject. Returns true if it may be sent, else counts it as suppressed.
    #[inline(always)]
    fn charge<E: Platform>(self, env: &mut E, is_path_mtu: bool) -> bool {
        let cost = env.reject_cost();
        if cost == 0 {
            return true;
        }
        let Some(meters) = env.reject_meters(self.0) else {
            return false;
        };
        let meter = if is_path_mtu {
            atomic_field!(RejectMeters, meters, path_mtu)
        } else {
            atomic_field!(RejectMeters, meters, refusals)
        };
        let now = env.now_nanoseconds();
        let is_allowed = charge(env, meter, now, cost, Limits::REJECT_BURST);
        if !is_allowed {
            env.count(Statistic::RejectsSuppressed);
        }
        is_allowed
    }
}
