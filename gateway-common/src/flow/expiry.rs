//! Expiry of idle flows. The data path and the agent judge flows by the same rules.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{CoarseTime, PlaceState, TcpFlagsSeen, TcpState},
    packet::protocol,
};

/// Ticks for which the source port of a closed flow is kept from new flows, unless the new SYN is beyond the old
/// connection or no other port is free: 60 s.
pub const CLOSED_TICKS: u32 = CoarseTime::ticks(60);

/// Ticks for which the entries of a flow stay whose approval was revoked or whose backend was removed: 60 s.
/// Meanwhile packets of both peers are rejected, and counted with the drop reason.
pub const ENDED_TICKS: u32 = CoarseTime::ticks(60);

/// Ticks for which an entry without its other direction stays: 10 s. The two entries are inserted one after the other,
/// so an entry may be seen alone for a moment.
pub const ORPHAN_TICKS: u32 = CoarseTime::ticks(10);

/// Ticks after which flows expire, by protocol and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowTimeouts {
    /// TCP flows that are open (RFC 5382, REQ-5).
    pub tcp_established: u32,
    /// TCP flows that are being opened or closed, and closed ones if it is less than [`CLOSED_TICKS`].
    pub tcp_transitory: u32,
    /// UDP flows (RFC 4787, REQ-5).
    pub udp: u32,
}

/// State of a flow by which its age is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLife {
    /// Protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// State of the entry towards the service.
    pub state: PlaceState,
    /// TCP flags seen towards the service.
    pub to_service: TcpFlagsSeen,
    /// TCP flags seen towards the consumer.
    pub to_consumer: TcpFlagsSeen,
}

impl FlowLife {
    /// Returns the ticks after which the flow expires if it stays idle. `timeouts` is nothing if the flow has ended:
    /// its approval was revoked, or its backend removed.
    #[inline(always)]
    #[must_use]
    pub const fn max_idle(self, timeouts: Option<FlowTimeouts>) -> u32 {
        let Some(timeouts) = timeouts else {
            return ENDED_TICKS;
        };
        if matches!(self.state, PlaceState::Closed) {
            return if timeouts.tcp_transitory < CLOSED_TICKS {
                timeouts.tcp_transitory
            } else {
                CLOSED_TICKS
            };
        }
        if self.protocol == protocol::UDP {
            return timeouts.udp;
        }
        if matches!(self.state, PlaceState::HalfOpen) {
            return timeouts.tcp_transitory;
        }
        match TcpState::from_flags_seen(self.to_service, self.to_consumer) {
            TcpState::Established | TcpState::HalfClosed => timeouts.tcp_established,
            _ => timeouts.tcp_transitory,
        }
    }
}
