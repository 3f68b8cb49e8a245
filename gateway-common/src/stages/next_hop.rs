//! Stage 8a: where a flow's packets go next. To the service: to the backend's next hop, as the
//! agent knows it now. To the consumer: back to where the flow came from, so no route into a
//! consumer's network is needed, and routed clients are answered like local ones.

use crate::{
    DropReason, Environment, Family, Step, Turn,
    flow::{Direction, Flow, FlowRef},
    packet::MacWord,
};

/// The station a packet is sent to, and the way there.
#[derive(Clone, Copy)]
pub(super) struct NextHop {
    /// The attachment slot.
    pub(super) egress: u32,
    /// The station's address.
    pub(super) mac: MacWord,
}

/// Returns the next hop of a flow that has not [ended](super::established::ended).
#[inline(always)]
pub(super) fn find<F: Family, E: Environment>(env: &E, flow: &FlowRef<F>) -> Step<NextHop> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        return Ok(client(fixed));
    }
    let (slot, generation) = fixed.backend();
    match env.backend(slot) {
        Some(backend) if backend.generation == generation => {
            if backend.reachable == 0 {
                return Err(Turn::drop(DropReason::NoBackend, fixed.link));
            }
            Ok(NextHop {
                egress: backend.egress,
                mac: backend.mac,
            })
        }
        // The backend left after the flow was checked.
        _ => Err(Turn::refuse(DropReason::BackendGone, fixed.link)),
    }
}

/// Returns the next hop of a flow that has not ended, for what is not a segment of it but concerns it.
#[inline(always)]
pub(super) fn of<F: Family, E: Environment>(env: &E, flow: &FlowRef<F>) -> Option<NextHop> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        return Some(client(fixed));
    }
    let (slot, generation) = fixed.backend();
    env.backend(slot)
        .filter(|backend| backend.generation == generation && backend.reachable != 0)
        .map(|backend| NextHop {
            egress: backend.egress,
            mac: backend.mac,
        })
}

/// Returns the next hop of an established flow; none if its backend has left or can't be reached. A
/// backend that has left is not heard any more either.
#[inline(always)]
pub(super) fn of_established<F: Family, E: Environment>(
    env: &E,
    flow: &FlowRef<F>,
) -> Option<NextHop> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        let (slot, generation) = fixed.answering_backend();
        let backend = env.backend(slot)?;
        return (backend.generation == generation).then(|| client(fixed));
    }
    of(env, flow)
}

/// Returns the next hop of packets to the consumer: the neighbour that the first packet came from.
#[inline(always)]
fn client<F: Family>(fixed: &Flow<F>) -> NextHop {
    NextHop {
        egress: fixed.egress.into(),
        mac: fixed.station(),
    }
}
