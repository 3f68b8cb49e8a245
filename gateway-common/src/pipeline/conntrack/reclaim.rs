//! Reclaiming of closed and expired flows by the data path itself: where a new flow needs their place or their source
//! port, and by a sweep that new flows drive.
//!
//! The agent's garbage collection does the same sooner, and terminates TCP flows at both ends. The data path does not
//! need it.

use core::marker::PhantomData;

use crate::{
    family::Family,
    flow::{
        CLOSED_TICKS, Direction, FlowLife, FlowRef, FlowTables, FlowTimeouts, ORPHAN_TICKS,
        PlaceState, WAYS,
        insert::Reclaim,
        memory::{FlowMemory, LoopBody},
        table::{self, at_index},
    },
    pipeline::{
        conntrack::{calls, life},
        rate_limit,
    },
    platform::PlatformFor,
};

/// Maximum number of buckets that one new flow sweeps: some ten microseconds of work.
const MAX_BUCKETS_PER_SWEEP: u32 = 512;

/// Ticks in which the whole table is swept, if there are enough new flows.
const SWEEP_TICKS: u32 = 64;

/// Ticks by which the sweep is later than the timeouts. So the agent, if it runs, comes first, and terminates both ends of
/// TCP connections.
const SWEEP_GRACE_TICKS: u32 = 8;

/// Runs [`calls::is_dead`].
#[inline(always)]
pub(crate) fn is_dead_now<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &FlowRef<F>,
    grace: u32,
) -> bool {
    if flow.control.is(PlaceState::Closed) && grace == 0 {
        return true;
    }
    let now = env.now();
    let own_idle = now.since(flow.entry().last_seen());
    // Inlined, unlike `calls::peer`, to save stack.
    let Some(peer) = table::peer::<F, E>(env, flow) else {
        let max_idle = if flow.control.is(PlaceState::Closed) {
            CLOSED_TICKS
        } else {
            ORPHAN_TICKS
        };
        return own_idle >= max_idle + grace;
    };
    let idle = own_idle.min(now.since(peer.entry().last_seen()));
    let (to_service, to_consumer) = if flow.entry().direction() == Direction::ToService {
        (flow.control, peer.control)
    } else {
        (peer.control, flow.control)
    };
    let life = FlowLife {
        protocol: flow.key().network_proto.protocol(),
        state: to_service.state(),
        to_service: to_service.flags_seen(),
        to_consumer: to_consumer.flags_seen(),
    };
    idle >= life.max_idle(timeouts(env, flow)).saturating_add(grace)
}

/// Returns the timeouts of a flow, or nothing if it has ended.
#[inline(always)]
fn timeouts<F: Family, E: PlatformFor<F>>(env: &E, flow: &FlowRef<F>) -> Option<FlowTimeouts> {
    let entry = flow.entry();
    let connection = env.connection(entry.connection_slot())?;
    let backend = env.backend(entry.backend_slot.into())?;
    (entry.is_of_connection(connection.generation) && entry.is_of_backend(backend.generation))
        .then_some(connection.timeouts)
}

/// The rules by which the data path replaces entries.
pub(crate) struct DataPathRules;

impl<F: Family, E: PlatformFor<F>> Reclaim<F, E> for DataPathRules {
    #[inline(always)]
    fn is_dead(env: &mut E, found: &FlowRef<F>) -> bool {
        calls::is_dead(env, found, 0)
    }

    #[inline(always)]
    fn on_replaced(env: &mut E, found: &FlowRef<F>) {
        life::uncount(env, found.entry(), found.control);
        if let Some(mut peer) = calls::peer(env, &found.reserved()) {
            life::remove_entry(env, &mut peer);
        }
    }
}

/// Sweeps some buckets if the sweep is behind its time: removes the flows in them that are dead.
#[inline(always)]
pub(crate) fn sweep<F: Family, E: PlatformFor<F>>(env: &mut E) {
    let Some(usage) = FlowTables::<F>::flow_table_usage(env) else {
        return;
    };
    let buckets = FlowMemory::<F>::bucket_count(env);
    let per_tick = u64::from(buckets / SWEEP_TICKS + 1);
    let due = u64::from(env.now().0) * per_tick;
    let swept = rate_limit::load_swept(usage);
    // What was missed in a time without new flows is made up for by one pass at most.
    let from = swept.max(due.saturating_sub(u64::from(buckets)));
    let count = due
        .saturating_sub(from)
        .min(u64::from(MAX_BUCKETS_PER_SWEEP));
    if count == 0 || !rate_limit::claim_sweep(env, usage, swept, from + count) {
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder and the maximum fit"
    )]
    let (first_bucket, count) = (
        from.checked_rem(u64::from(buckets)).unwrap_or(0) as u32,
        count as u32,
    );
    let mut sweep = Sweep::<F> {
        first: first_bucket * WAYS,
        places: buckets * WAYS,
        family: PhantomData,
    };
    env.bounded_loop(count * WAYS, &mut sweep);
}

/// The sweep of some buckets.
struct Sweep<F> {
    /// Index of the first place.
    first: u32,
    /// Number of places in the table.
    places: u32,
    family: PhantomData<F>,
}

impl<F: Family, E: PlatformFor<F>> LoopBody<E> for Sweep<F> {
    #[inline(always)]
    fn iterate(&mut self, env: &mut E, iteration: u32) -> bool {
        let index = self.first + iteration;
        let index = if index < self.places {
            index
        } else {
            index - self.places
        };
        let Some(flow) = at_index::<F, E>(env, index) else {
            return true;
        };
        if flow.control.is_visible() && calls::is_dead(env, &flow, SWEEP_GRACE_TICKS) {
            calls::remove(env, &flow);
        }
        false
    }
}
