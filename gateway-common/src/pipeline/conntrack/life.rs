//! The life of a flow: establishing, closing and removal of its two entries, and the counts of flows.
//!
//! A flow is counted by the state of its entry towards the service. Each change of that state is an exchange, which
//! one CPU wins, so a flow is counted once.

use crate::{
    family::Family,
    flow::{Control, Direction, Flow, FlowRef, FlowTables, PlaceState, TcpFlagsSeen},
    pipeline::{conntrack::calls, rate_limit},
    platform::PlatformFor,
};

/// Establishes a half-open flow, given both entries. A flow beyond its connection's share of the table stays half-open:
/// its packets are forwarded, and a new flow may take its place.
#[inline(always)]
pub(crate) fn establish<F: Family, E: PlatformFor<F>>(
    env: &E,
    to_service: &mut FlowRef<F>,
    to_consumer: &mut FlowRef<F>,
) {
    let change = |control: Control| {
        control
            .is(PlaceState::HalfOpen)
            .then(|| control.with_state(PlaceState::Established))
    };
    let connection_slot = to_service.entry().connection_slot();
    // Checked again, since many flows may have been half-open together.
    if rate_limit::share_excess::<F, E>(env, connection_slot).is_some() {
        return;
    }
    // The reverse entry first: a flow that is counted as established has no half-open entry, which could be replaced.
    if to_consumer.update(change).is_none() {
        return;
    }
    // Counted before another CPU can close the flow.
    count_established::<F, E>(env, connection_slot);
    if to_service.update(change).is_none() {
        uncount_established::<F, E>(env, connection_slot);
        close_confirmed(to_consumer);
    }
}

/// Opens a flow again that a reset had closed, but that the reset's sender goes on with (RFC 6146, state TRANS). A flow
/// whose FINs are acknowledged stays closed, and so does an entry without its other direction.
#[inline(always)]
pub(crate) fn reopen<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>) {
    let change = |control: Control| {
        control
            .is(PlaceState::Closed)
            .then(|| control.with_state(PlaceState::Established))
    };
    let Some(mut peer) = calls::peer(env, flow) else {
        return;
    };
    let acknowledged = TcpFlagsSeen::FIN_ACKED;
    if flow.flags_seen().has(acknowledged) && peer.flags_seen().has(acknowledged) {
        return;
    }
    let connection_slot = flow.entry().connection_slot();
    let (to_service, to_consumer) = if flow.entry().direction() == Direction::ToService {
        (flow, &mut peer)
    } else {
        (&mut peer, flow)
    };
    rate_limit::flow_opened(env, connection_slot);
    count_established::<F, E>(env, connection_slot);
    if to_service.update(change).is_none() {
        rate_limit::flow_closed(env, connection_slot);
        uncount_established::<F, E>(env, connection_slot);
        return;
    }
    let _before = to_consumer.update(change);
    // Another CPU may have closed the flow and removed its entry towards the service meanwhile (see `lookup_flow`).
    to_service.refresh();
    if !to_service.control.is_confirmed() || !to_service.is_current() {
        close_confirmed(to_consumer);
    }
}

/// Closes the entry towards the consumer of a flow whose entry towards the service is closed or gone. That entry is the
/// one that is counted.
#[inline(always)]
fn close_confirmed<F: Family>(to_consumer: &mut FlowRef<F>) {
    let _before = to_consumer.update(|control| {
        control
            .is_confirmed()
            .then(|| control.with_state(PlaceState::Closed))
    });
}

/// Runs [`calls::close`].
#[inline(always)]
pub(crate) fn close_now<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>) {
    let peer = calls::peer(env, flow);
    close_entry(env, flow);
    if let Some(mut peer) = peer {
        close_entry(env, &mut peer);
    }
}

#[inline(always)]
fn close_entry<F: Family, E: PlatformFor<F>>(env: &E, flow: &mut FlowRef<F>) {
    // The place may get another entry right after the exchange.
    let entry = Counted::new(flow.entry());
    let before = flow.update(|control| {
        (control.is_visible() && !control.is(PlaceState::Closed))
            .then(|| control.with_state(PlaceState::Closed))
    });
    if let Some(before) = before {
        entry.uncount::<F, E>(env, before);
    }
}

/// Runs [`calls::remove`].
#[inline(always)]
pub(crate) fn remove_now<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>) {
    let peer = calls::peer(env, flow);
    remove_entry(env, flow);
    if let Some(mut peer) = peer {
        remove_entry(env, &mut peer);
    }
}

/// Removes one entry of a flow.
#[inline(always)]
pub(crate) fn remove_entry<F: Family, E: PlatformFor<F>>(env: &E, flow: &mut FlowRef<F>) {
    // The place may get another entry right after the exchange.
    let entry = Counted::new(flow.entry());
    if let Some(before) = flow.remove() {
        entry.uncount::<F, E>(env, before);
    }
}

/// Counts an entry as gone, given its control word before.
#[inline(always)]
pub(crate) fn uncount<F: Family, E: PlatformFor<F>>(env: &E, entry: &Flow<F>, before: Control) {
    Counted::new(entry).uncount::<F, E>(env, before);
}

/// Part of an entry that the counts of flows need.
struct Counted {
    direction: Direction,
    connection_slot: u32,
}

impl Counted {
    #[inline(always)]
    const fn new<F: Family>(entry: &Flow<F>) -> Self {
        Self {
            direction: entry.direction(),
            connection_slot: entry.connection_slot(),
        }
    }

    #[inline(always)]
    fn uncount<F: Family, E: PlatformFor<F>>(&self, env: &E, before: Control) {
        if self.direction != Direction::ToService || before.is(PlaceState::Closed) {
            return;
        }
        rate_limit::flow_closed(env, self.connection_slot);
        if before.is_confirmed() {
            uncount_established::<F, E>(env, self.connection_slot);
        }
    }
}

/// Counts a flow as established.
#[inline(always)]
fn count_established<F: Family, E: PlatformFor<F>>(env: &E, connection_slot: u32) {
    rate_limit::flow_established(env, connection_slot);
    if let Some(usage) = FlowTables::<F>::flow_table_usage(env) {
        rate_limit::count_up(env, rate_limit::established_flows(usage));
    }
}

/// Counts a flow as no longer established.
#[inline(always)]
fn uncount_established<F: Family, E: PlatformFor<F>>(env: &E, connection_slot: u32) {
    rate_limit::flow_unestablished(env, connection_slot);
    if let Some(usage) = FlowTables::<F>::flow_table_usage(env) {
        rate_limit::count_down(env, rate_limit::established_flows(usage));
    }
}
