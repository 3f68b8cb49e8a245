//! Expiry of idle flows, by which garbage collection removes their entries. Pure but for [`FlowPair::copy`].

use gateway_common::{
    Family,
    flow::{
        CLOSED_TICKS, CoarseTime, Control, Flow, FlowKey, FlowLife, FlowRef, FlowTimeouts,
        ORPHAN_TICKS, PlaceState, TcpState,
    },
    packet::protocol,
};

use crate::model::service::Timeouts;

/// Ticks within which no timeout can have passed.
const RECENT_TICKS: u32 = {
    let shortest = CoarseTime::ticks(Timeouts::MIN_SECONDS);
    if shortest < ORPHAN_TICKS {
        shortest
    } else {
        ORPHAN_TICKS
    }
};

/// One entry of a flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowEntry<F: Family> {
    /// Control word of the entry's place.
    pub control: Control,
    /// Key of arriving packets.
    pub key: FlowKey<F>,
    /// Rewriting and next hop.
    pub flow: Flow<F>,
}

impl<F: Family> FlowEntry<F> {
    fn copy(found: &FlowRef<F>) -> Self {
        Self {
            control: found.control,
            key: found.place.key(),
            flow: found.place.flow(),
        }
    }
}

/// The two entries of a flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowPair<F: Family> {
    /// Entry for packets from the consumer to the service.
    pub to_service: FlowEntry<F>,
    /// Entry for packets from the service to the consumer.
    pub to_consumer: FlowEntry<F>,
}

impl<F: Family> FlowPair<F> {
    /// Copies the two entries of a flow, since packets change them. Returns nothing if one was replaced meanwhile.
    #[must_use]
    pub fn copy(to_service: &FlowRef<F>, to_consumer: &FlowRef<F>) -> Option<Self> {
        let pair = Self {
            to_service: FlowEntry::copy(to_service),
            to_consumer: FlowEntry::copy(to_consumer),
        };
        (to_service.is_current() && to_consumer.is_current()).then_some(pair)
    }

    /// Returns the protocol number: 6 (TCP) or 17 (UDP).
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.to_service.key.network_proto.protocol()
    }

    /// Returns the TCP state, or `None` if the flow is not TCP.
    #[must_use]
    pub fn tcp_state(&self) -> Option<TcpState> {
        (self.protocol() == protocol::TCP).then(|| {
            TcpState::from_flags_seen(
                self.to_service.control.flags_seen(),
                self.to_consumer.control.flags_seen(),
            )
        })
    }

    /// Returns the time of the last packet, in either direction.
    #[must_use]
    pub fn last_seen(&self) -> CoarseTime {
        self.to_service
            .flow
            .last_seen()
            .max(self.to_consumer.flow.last_seen())
    }

    /// Returns true if the flow has been idle for longer than its timeout. `timeouts` is nothing if the flow has ended.
    #[must_use]
    pub fn is_expired(&self, now: CoarseTime, timeouts: Option<FlowTimeouts>) -> bool {
        let life = FlowLife {
            protocol: self.protocol(),
            state: self.to_service.control.state(),
            to_service: self.to_service.control.flags_seen(),
            to_consumer: self.to_consumer.control.flags_seen(),
        };
        now.since(self.last_seen()) >= life.max_idle(timeouts)
    }
}

/// Returns true if an entry without its other direction has been idle for longer than its timeout.
#[must_use]
pub const fn is_orphan_expired(control: Control, last_seen: CoarseTime, now: CoarseTime) -> bool {
    let max_idle = if control.is(PlaceState::Closed) {
        CLOSED_TICKS
    } else {
        ORPHAN_TICKS
    };
    now.since(last_seen) >= max_idle
}

/// Returns true if an entry was used so recently that no timeout can have passed.
#[must_use]
pub const fn is_recent(last_seen: CoarseTime, now: CoarseTime) -> bool {
    now.since(last_seen) < RECENT_TICKS
}

/// Converts ticks of [`CoarseTime`] to whole seconds.
#[must_use]
pub const fn ticks_to_seconds(ticks: u32) -> u64 {
    CoarseTime(ticks).nanoseconds() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use gateway_common::{
        V4,
        flow::{Direction, NetworkProto, TcpFlagsSeen},
    };

    use super::*;

    fn pair(
        protocol: u8,
        state: PlaceState,
        to_service: TcpFlagsSeen,
        to_consumer: TcpFlagsSeen,
        last_seen: u32,
    ) -> FlowPair<V4> {
        let entry = |seen: TcpFlagsSeen, direction: Direction| {
            let mut flow = Flow::default();
            flow.set_direction(direction, 0, false);
            flow.last_seen_and_scale = last_seen;
            FlowEntry {
                control: Control::NEVER_USED.with_state(state).with_flags(seen),
                key: FlowKey {
                    network_proto: NetworkProto::new(1, protocol),
                    ..FlowKey::default()
                },
                flow,
            }
        };
        FlowPair {
            to_service: entry(to_service, Direction::ToService),
            to_consumer: entry(to_consumer, Direction::ToConsumer),
        }
    }

    /// Returns the number of idle seconds after which the flow is expired, to within a tick.
    fn lifetime(pair: &FlowPair<V4>, timeouts: Option<FlowTimeouts>) -> u64 {
        let last = pair.last_seen().0;
        let ticks = (0..)
            .find(|age| pair.is_expired(CoarseTime(last + age), timeouts))
            .unwrap();
        ticks_to_seconds(ticks)
    }

    #[test]
    fn each_state_has_its_timeout() {
        use PlaceState::{Closed, Established, HalfOpen};
        let timeouts = Timeouts {
            tcp_established: 500,
            tcp_transitory: 40,
            udp: 90,
        };
        let timeouts = Some(timeouts.to_map_timeouts());
        let (syn, ack, fin) = (TcpFlagsSeen::SYN, TcpFlagsSeen::ACK, TcpFlagsSeen::FIN);
        let open = syn.union(ack);
        for (protocol, state, forward, back, expected) in [
            (protocol::TCP, HalfOpen, syn, TcpFlagsSeen::NONE, 40),
            (protocol::TCP, HalfOpen, syn, open, 40),
            (protocol::TCP, Established, open, open, 500),
            (protocol::TCP, Established, open.union(fin), open, 500),
            (
                protocol::TCP,
                Established,
                open.union(fin),
                open.union(fin),
                40,
            ),
            (protocol::TCP, Closed, open.union(fin), open.union(fin), 40),
            (
                protocol::TCP,
                Closed,
                open.union(TcpFlagsSeen::RST),
                open,
                40,
            ),
            (protocol::UDP, HalfOpen, ack, TcpFlagsSeen::NONE, 90),
            (protocol::UDP, Established, ack, ack, 90),
        ] {
            let lived = lifetime(&pair(protocol, state, forward, back, 1_000), timeouts);
            assert!(
                (expected + 1..=expected + 2).contains(&lived),
                "{state:?} {forward:?} {back:?}: {lived}"
            );
        }
    }

    #[test]
    fn ended_flows_expire_after_a_minute() {
        let (ack, state) = (TcpFlagsSeen::ACK, PlaceState::Established);
        let flow = pair(protocol::TCP, state, ack, ack, 1_000);
        assert!((61..=62).contains(&lifetime(&flow, None)));
    }

    #[test]
    fn last_seen_is_the_later_of_both_directions() {
        let (ack, state) = (TcpFlagsSeen::ACK, PlaceState::Established);
        let mut flow = pair(protocol::UDP, state, ack, ack, 1_000);
        flow.to_consumer.flow.last_seen_and_scale = 1_200;
        assert_eq!(flow.last_seen(), CoarseTime(1_200));
    }
}
