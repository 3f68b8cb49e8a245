//! Half-open flows: flows that one side has not confirmed.
//!
//! A new flow may take the place of a half-open one, so a flood of first packets replaces half-open flows only. A flow
//! is established when both sides have confirmed it: for TCP by the consumer's acknowledgement of the backend's SYN,
//! for UDP by a datagram of the consumer after a reply.
//!
//! ```text
//!   consumer           gateway                                     backend
//!      │ SYN              │                                           │
//!      ├─────────────────►│ both entries half-open ──────────────────►│
//!      │                  │                                  SYN, ACK │
//!      │◄─────────────────┤ records the number that confirms it ◄─────┤
//!      │ ACK of ISN + 1   │                                           │
//!      ├─────────────────►│ both entries established ────────────────►│
//! ```

use crate::{
    byte_order::Be32,
    family::Family,
    flow::{Direction, FlowRef, TcpFlagsSeen},
    packet::{Tcp, TcpFlags},
    pipeline::{
        conntrack::{calls, life, tcp},
        ingress::l4::{L4Header, L4Packet},
    },
    platform::PlatformFor,
};

/// Updates a half-open flow by a packet. Returns false if the flow was incomplete and is gone.
#[inline(always)]
pub(crate) fn on_packet<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    header: &L4Header,
    flow: &mut FlowRef<T>,
) -> bool {
    // Another flow may have taken the place of one entry.
    let Some(mut peer) = calls::peer(env, flow) else {
        life::remove_entry(env, flow);
        return false;
    };
    let is_to_service = flow.entry().direction() == Direction::ToService;
    match *header {
        L4Header::Tcp(segment) if segment.flags() & TcpFlags::RST != 0 => {
            // The reset is not recorded: a later segment must not establish a flow that was not confirmed.
            calls::close(env, flow);
        }
        L4Header::Tcp(segment) if is_to_service => {
            tcp::record_flags(flow, segment.flags() & !TcpFlags::FIN);
            if is_confirmed(segment, flow, &peer) {
                life::establish(env, flow, &mut peer);
                tcp::on_valid_segment(env, packet, segment, flow);
            }
        }
        L4Header::Tcp(segment) => {
            if segment.flags() & TcpFlags::SYN != 0 {
                let next = segment.sequence().get().wrapping_add(1);
                peer.set_last_ack(Be32::new(next));
            }
            tcp::record_ack(flow, segment);
            tcp::record_flags(flow, segment.flags() & !TcpFlags::FIN);
        }
        L4Header::Udp(_) if !is_to_service => tcp::record_flags(flow, TcpFlags::ACK),
        L4Header::Udp(_) => {
            if peer.flags_seen().has(TcpFlagsSeen::ACK) {
                life::establish(env, flow, &mut peer);
            }
        }
        L4Header::None => {}
    }
    true
}

/// Returns true if the segment of the consumer acknowledges the backend's SYN.
#[inline(always)]
fn is_confirmed<F: Family>(segment: Tcp, flow: &FlowRef<F>, peer: &FlowRef<F>) -> bool {
    segment.flags() & TcpFlags::ACK != 0
        && peer
            .flags_seen()
            .has(TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK))
        && segment.acknowledgement() == flow.last_ack()
}
