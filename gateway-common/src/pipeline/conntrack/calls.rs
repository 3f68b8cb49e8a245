//! The functions of the flow table that run as [`FlowCall`]s, and their callers.

use crate::{
    family::Family,
    flow::{
        FlowCall, FlowId, FlowKey, FlowRef, FlowTables, ReturnPath,
        insert::{InsertError, Survey, insert as insert_entry},
        table,
    },
    pipeline::conntrack::{
        life,
        reclaim::{self, DataPathRules},
        return_path, tcp,
    },
    platform::PlatformFor,
};

/// Runs a function of the flow table.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "ticks and sequence numbers have 32 bits"
)]
pub fn run_flow_call<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    call: FlowCall,
    arguments: [u64; 5],
) -> u64 {
    match call {
        FlowCall::Lookup => {
            let key = FlowKey::<F>::from_words(arguments);
            return to_bits(table::lookup::<F, E>(env, &key));
        }
        FlowCall::Survey => {
            let key = FlowKey::<F>::from_words(arguments);
            return Survey::new::<F, E>(env, &key).to_bits();
        }
        FlowCall::Insert => {
            let (Some(key), Some(flow)) = (env.scratch(), FlowTables::<F>::flow_scratch(env))
            else {
                return FlowId::new(0, FULL).to_bits();
            };
            // SAFETY: the caller has written both in this packet's own memory, and does not write them meanwhile.
            let (key, flow) = unsafe { (key.cast::<FlowKey<F>>().as_ref(), flow.as_ref()) };
            return match insert_entry::<F, E, DataPathRules>(env, key, flow) {
                Ok(found) => found.id().to_bits(),
                Err(InsertError::Full) => FlowId::new(0, FULL).to_bits(),
                Err(InsertError::Exists) => FlowId::new(0, EXISTS).to_bits(),
            };
        }
        _ => {}
    }
    let [entry, first, ..] = arguments;
    let Some(mut flow) = table::by_id::<F, E>(env, FlowId::from_bits(entry)) else {
        return 0;
    };
    match call {
        FlowCall::Peer => return to_bits(table::peer::<F, E>(env, &flow)),
        FlowCall::IsDead => return u64::from(reclaim::is_dead_now(env, &flow, first as u32)),
        FlowCall::Close => life::close_now(env, &mut flow),
        FlowCall::Remove => life::remove_now(env, &mut flow),
        FlowCall::SetReturnPath => {
            return_path::set_now(env, &mut flow, ReturnPath::from_bits(first));
        }
        FlowCall::Restart => tcp::restart_now(env, first as u32, &flow),
        FlowCall::RecordFin => {
            tcp::record_fin_now(env, first as u32, &mut flow);
        }
        FlowCall::RecordFinAcked => tcp::record_fin_acked_now(env, &mut flow),
        FlowCall::Lookup | FlowCall::Survey | FlowCall::Insert => {}
    }
    0
}

/// Causes of a failed insertion, in place of an index.
const EXISTS: u32 = 1;
const FULL: u32 = 2;

#[inline(always)]
fn to_bits<F: Family>(found: Option<FlowRef<F>>) -> u64 {
    found.map_or(FlowId::NONE, |found| found.id()).to_bits()
}

/// Returns the visible entry with this key.
#[inline(always)]
pub(crate) fn lookup<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    key: &FlowKey<F>,
) -> Option<FlowRef<F>> {
    let id = FlowTables::<F>::call(env, FlowCall::Lookup, key.to_words());
    table::by_id::<F, E>(env, FlowId::from_bits(id))
}

/// Inserts the entry that was built in the packet's own memory ([`FlowTables::flow_scratch`]), under the key at the
/// beginning of the other memory ([`Platform::scratch`](crate::Platform::scratch)).
#[inline(always)]
pub(crate) fn insert<F: Family, E: PlatformFor<F>>(env: &mut E) -> Result<FlowRef<F>, InsertError> {
    let bits = FlowTables::<F>::call(env, FlowCall::Insert, [0; 5]);
    let id = FlowId::from_bits(bits);
    if id.control() == 0 {
        return Err(if id.index() == FULL {
            InsertError::Full
        } else {
            InsertError::Exists
        });
    }
    table::by_id::<F, E>(env, id).ok_or(InsertError::Full)
}

/// Calls a function with an entry and a number.
#[inline(always)]
fn call<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    call: FlowCall,
    flow: &FlowRef<F>,
    argument: u32,
) -> u64 {
    let entry = flow.id().to_bits();
    FlowTables::<F>::call(env, call, [entry, argument.into(), 0, 0, 0])
}

/// Returns the entry of the other direction, if it is visible and belongs to the same flow.
#[inline(always)]
pub(crate) fn peer<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &FlowRef<F>,
) -> Option<FlowRef<F>> {
    let id = call(env, FlowCall::Peer, flow, 0);
    table::by_id::<F, E>(env, FlowId::from_bits(id))
}

/// Returns true if the flow is closed, has expired more than `grace` ticks ago, or has lost its other entry.
#[inline(always)]
pub(crate) fn is_dead<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &FlowRef<F>,
    grace: u32,
) -> bool {
    call(env, FlowCall::IsDead, flow, grace) != 0
}

/// Closes a flow: both of its entries stay, and are free for whoever needs their places or the source port.
#[inline(always)]
pub(crate) fn close<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>) {
    call(env, FlowCall::Close, flow, 0);
    flow.refresh();
}

/// Removes both entries of a flow.
#[inline(always)]
pub(crate) fn remove<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &FlowRef<F>) {
    call(env, FlowCall::Remove, flow, 0);
}

/// Sets the return path of a flow, given its entry towards the service.
#[inline(always)]
pub(crate) fn set_return_path<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &FlowRef<F>,
    path: ReturnPath,
) {
    let entry = flow.id().to_bits();
    let arguments = [entry, path.to_bits(), 0, 0, 0];
    FlowTables::<F>::call(env, FlowCall::SetReturnPath, arguments);
}

/// Begins a new connection with the addresses and ports of a flow if the consumer asked for one, given the flow's entry
/// towards the consumer. `next` acknowledges the backend's SYN.
#[inline(always)]
pub(crate) fn restart<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>, next: u32) {
    call(env, FlowCall::Restart, flow, next);
    flow.refresh();
}

/// Records a FIN, which the other direction acknowledges by `end` or more.
#[inline(always)]
pub(crate) fn record_fin<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    flow: &mut FlowRef<F>,
    end: u32,
) {
    call(env, FlowCall::RecordFin, flow, end);
    flow.refresh();
}

/// Records that this direction has acknowledged the other one's FIN. Closes the flow if both directions have.
#[inline(always)]
pub(crate) fn record_fin_acked<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &mut FlowRef<F>) {
    call(env, FlowCall::RecordFinAcked, flow, 0);
    flow.refresh();
}
