//! Stage 8a: where a flow's packets go next. To the service: to the backend's next hop, as the
//! agent knows it now. To the consumer: back to where the flow came from, so no route into a
//! consumer's network is needed, and routed clients are answered like local ones.

use crate::{
    DropReason, Environment, Family, Step, Turn,
    flow::{Direction, FlowKey, FlowRef, Table},
    packet::MacWord,
    stages::{established::remove, transport::Segment},
};

/// The station a packet is sent to, and the way there.
#[derive(Clone, Copy)]
pub(super) struct NextHop {
    /// The attachment slot.
    pub(super) egress: u32,
    /// The station's address.
    pub(super) mac: MacWord,
}

/// The flow's next hop. None if its backend is gone and the segment may open the flow anew: the old
/// one has been removed then.
#[inline(always)]
pub(super) fn find<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    key: &FlowKey<T>,
    flow: &FlowRef<T>,
    table: Table,
) -> Step<Option<NextHop>> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        return Ok(Some(NextHop {
            egress: fixed.egress.into(),
            mac: fixed.station(),
        }));
    }
    let (slot, generation) = fixed.backend();
    match env.backend(slot) {
        Some(backend) if backend.generation == generation => {
            if backend.reachable == 0 {
                return Err(Turn::drop(DropReason::NoBackend, fixed.link));
            }
            Ok(Some(NextHop {
                egress: backend.egress,
                mac: backend.mac,
            }))
        }
        _ => {
            if segment.opens(env) {
                remove(env, key, flow, table);
                return Ok(None);
            }
            Err(Turn::refuse(DropReason::BackendGone, fixed.link))
        }
    }
}

/// The same for what is not a segment of the flow but concerns it: nothing is removed or refused.
#[inline(always)]
pub(super) fn of<F: Family, E: Environment>(env: &E, flow: &FlowRef<F>) -> Option<NextHop> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        return Some(NextHop {
            egress: fixed.egress.into(),
            mac: fixed.station(),
        });
    }
    let (slot, generation) = fixed.backend();
    env.backend(slot)
        .filter(|backend| backend.generation == generation && backend.reachable != 0)
        .map(|backend| NextHop {
            egress: backend.egress,
            mac: backend.mac,
        })
}
