//! Stage 8a: where a flow's packets go next. To the service: to the backend's next hop, as the
//! agent knows it now. To the consumer: back to where the flow came from, so no route into a
//! consumer's network is needed, and routed clients are answered like local ones.

use crate::{
    DropReason, Environment, Family, Step, Verdict,
    flow::{Direction, FlowRef, Table},
    packet::Mac,
    stages::{
        established::remove,
        parse::{Segment, Transport},
        reset,
    },
};

/// The station a packet is sent to, and the way there.
pub(super) struct NextHop {
    /// The attachment slot.
    pub(super) egress: u32,
    /// The station's address.
    pub(super) mac: Mac,
}

/// The flow's next hop. None if its backend is gone and the segment may open the flow anew: the old
/// one has been removed then.
#[inline(always)]
pub(super) fn find<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    table: Table,
) -> Step<Option<NextHop>> {
    let fixed = flow.fixed();
    if fixed.direction() == Direction::ToConsumer {
        return Ok(Some(NextHop {
            egress: fixed.egress,
            mac: fixed.mac,
        }));
    }
    match env.backend(fixed.backend) {
        Some(backend) if backend.generation == fixed.backend_generation => {
            if backend.reachable == 0 {
                return Err(Verdict::Drop(DropReason::NoBackend, fixed.link));
            }
            Ok(Some(NextHop {
                egress: backend.egress,
                mac: backend.mac,
            }))
        }
        _ => {
            if segment.opens() {
                remove(env, segment, flow, table);
                return Ok(None);
            }
            let link = fixed.link;
            if let Transport::Udp(_) = segment.transport {
                return Err(Verdict::Drop(DropReason::BackendGone, link));
            }
            Err(reset::refuse(env, segment, DropReason::BackendGone, link))
        }
    }
}
