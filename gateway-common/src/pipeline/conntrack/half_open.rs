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
//!      │ ACK              │                                           │
//!      ├─────────────────►│ both entries established ────────────────►│
//! ```

use crate::{
    byte_order::Be32,
    family::Family,
    flow::{Direction, FlowRef, PlaceState, TcpFlagsSeen},
    packet::{Tcp, TcpFlags},
    pipeline::{
        conntrack::{calls, life, lookup::Availability, tcp},
        ingress::l4::{L4Header, L4Packet},
    },
    platform::PlatformFor,
};

/// Updates a half-open flow by a packet. Returns false if the flow is gone: it was incomplete, or its backend has not
/// answered and takes no flows by now.
#[inline(always)]
pub(crate) fn on_packet<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    header: &L4Header,
    flow: &mut FlowRef<T>,
    backend: Availability,
) -> bool {
    // Another flow may have taken the place of one entry.
    let Some(mut peer) = calls::peer(env, flow) else {
        life::remove_entry(env, flow);
        return false;
    };
    let is_to_service = flow.entry().direction() == Direction::ToService;
    match *header {
        L4Header::Tcp(segment) if segment.flags() & TcpFlags::RST != 0 => {
            let (to_consumer, number) = if is_to_service {
                (&peer, segment.sequence())
            } else {
                (&*flow, segment.acknowledgement())
            };
            // By this number a later connection gets the source port again.
            if is_to_service || segment.flags() & TcpFlags::ACK != 0 {
                to_consumer.set_last_ack(number);
            }
            // The reset is not recorded: a later segment must not establish a flow that was not confirmed.
            calls::close(env, flow);
        }
        L4Header::Tcp(segment)
            if is_to_service
                && segment.is_initial_syn()
                && !backend.takes_flows()
                && peer.flags_seen() == TcpFlagsSeen::NONE =>
        {
            calls::remove(env, flow);
            return false;
        }
        L4Header::Tcp(segment) if is_to_service => {
            tcp::record_flags(flow, segment.flags() & !TcpFlags::FIN);
            if let Some(base) = confirmed_base(segment, flow, &peer) {
                confirm(env, packet, segment, base, flow, &mut peer);
            }
        }
        L4Header::Tcp(segment) => {
            let is_accepted = record_backend_segment(packet, segment, flow, &peer);
            // A FIN of any number must not make the flow half-closed, which has longer timeouts.
            let kept = if is_accepted { 0 } else { TcpFlags::FIN };
            tcp::record_flags(flow, segment.flags() & !kept);
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

/// Records what the consumer may acknowledge once it has the segment of the backend. Returns true if the segment continues
/// what the backend has sent.
#[inline(always)]
fn record_backend_segment<A: Family, F: Family>(
    packet: &L4Packet<A>,
    segment: Tcp,
    to_consumer: &FlowRef<F>,
    to_service: &FlowRef<F>,
) -> bool {
    let flags = segment.flags();
    let data = packet.payload_len.saturating_sub(segment.header_length());
    let is_syn = flags & TcpFlags::SYN != 0;
    let begin = segment.sequence().get().wrapping_add(is_syn.into());
    let end = begin
        .wrapping_add(u32::from(data))
        .wrapping_add((flags & TcpFlags::FIN).into());
    let has_syn = to_consumer.flags_seen().has(TcpFlagsSeen::SYN);
    let first = to_consumer.last_ack().get();
    if is_syn {
        if !has_syn {
            to_consumer.set_last_ack(Be32::new(begin));
        }
        // The first SYN that is sent again takes nothing back. A server with SYN cookies (RFC 4987, section 3.6) may
        // answer a repeated SYN with another number.
        if !has_syn || begin != first {
            to_service.set_last_ack(Be32::new(end));
        }
    }
    let continues =
        !is_syn && has_syn && end.wrapping_sub(to_service.last_ack().get()) <= MAX_UNCONFIRMED;
    if continues {
        to_service.set_last_ack(Be32::new(end));
    }
    to_consumer.set_window(segment.window());
    is_syn || continues
}

/// Bytes that the backend may send before the consumer confirms the flow (TCP Fast Open, RFC 7413). Whoever has not seen
/// the backend's SYN guesses a number among so few of 32 bits in vain.
const MAX_UNCONFIRMED: u32 = 0xffff;

/// Returns the number up to which the consumer's segment confirms that it has the backend's SYN, or nothing if it does
/// not: the number that acknowledges that SYN, of the first and the last one of the backend.
#[inline(always)]
fn confirmed_base<F: Family>(
    segment: Tcp,
    to_service: &FlowRef<F>,
    to_consumer: &FlowRef<F>,
) -> Option<u32> {
    let has_answer = to_consumer
        .flags_seen()
        .has(TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK));
    if segment.flags() & TcpFlags::ACK == 0 || !has_answer {
        return None;
    }
    let acknowledged = segment.acknowledgement().get();
    let (first, newest) = (to_consumer.last_ack().get(), to_service.last_ack().get());
    let sent = newest.wrapping_sub(first);
    if sent <= MAX_UNCONFIRMED && acknowledged.wrapping_sub(first) <= sent {
        return Some(first);
    }
    (acknowledged == first || acknowledged == newest).then_some(acknowledged)
}

/// Establishes a flow by a segment of the consumer. From now on, both entries have the numbers of their direction.
#[inline(always)]
fn confirm<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    packet: &L4Packet<A>,
    segment: Tcp,
    base: u32,
    to_service: &mut FlowRef<T>,
    to_consumer: &mut FlowRef<T>,
) {
    life::establish(env, to_service, to_consumer);
    if !to_service.control.is(PlaceState::Established) {
        return;
    }
    let newest = to_service.last_ack().get();
    to_service.set_last_ack(Be32::new(base));
    to_service.set_window(segment.window());
    to_consumer.set_last_ack(segment.sequence());
    if to_consumer.flags_seen().has(TcpFlagsSeen::FIN) {
        calls::record_fin(env, to_consumer, newest);
        to_service.refresh();
    }
    tcp::on_valid_segment(env, packet, segment, to_service);
}
