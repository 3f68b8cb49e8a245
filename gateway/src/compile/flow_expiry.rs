//! When an idle flow's entries are removed. Pure.

use gateway_common::{
    Family,
    flow::{CoarseTime, Direction, Flow, FlowKey, TcpFlagsSeen, TcpState},
    packet::protocol,
};

use crate::model::service::Timeouts;

/// How long the entries of a flow stay whose connection has been cut, in seconds: so long the peers'
/// packets are answered with a reset that names the reason.
const REVOKED_TTL: u32 = 60;

/// How long a flow of which only one direction's entry is left stays, in seconds. Pairs are inserted
/// and moved one entry after the other, so a half may be seen that is about to be a whole.
const ORPHAN_TTL: u32 = 10;

/// What is known of the connection that a flow belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPolicy {
    /// Its generation now.
    pub generation: u32,
    /// Its service's timeouts.
    pub timeouts: Timeouts,
}

/// A flow, put together of its two entries.
#[derive(Clone, Copy, Debug)]
pub struct FlowPair<F: Family> {
    /// The key of the consumer's direction.
    pub key: FlowKey<F>,
    /// The consumer's direction.
    pub to_service: Flow<F>,
    /// The other one.
    pub to_consumer: Flow<F>,
}

impl<F: Family> FlowPair<F> {
    /// Puts an entry and the one that is under its reverse key together, if they belong together.
    #[must_use]
    pub fn from_entries(key: FlowKey<F>, entry: Flow<F>, reverse: Flow<F>) -> Option<Self> {
        if reverse.reverse_key(key.network_proto.protocol()) != key {
            return None;
        }
        match (entry.direction(), reverse.direction()) {
            (Direction::ToService, Direction::ToConsumer) => Some(Self {
                key,
                to_service: entry,
                to_consumer: reverse,
            }),
            (Direction::ToConsumer, Direction::ToService) => Some(Self {
                key: entry.reverse_key(key.network_proto.protocol()),
                to_service: reverse,
                to_consumer: entry,
            }),
            _ => None,
        }
    }

    /// The TCP state, if it is TCP.
    #[must_use]
    pub fn tcp_state(&self) -> Option<TcpState> {
        (self.key.network_proto.protocol() == protocol::TCP).then(|| {
            TcpState::from_flags_seen(
                TcpFlagsSeen(self.to_service.tcp_flags_seen),
                TcpFlagsSeen(self.to_consumer.tcp_flags_seen),
            )
        })
    }

    /// When the last packet passed, either way.
    #[must_use]
    pub fn last_seen(&self) -> CoarseTime {
        CoarseTime(self.to_service.last_seen.max(self.to_consumer.last_seen))
    }

    /// Whether the flow has been idle for longer than it may.
    #[must_use]
    pub fn is_expired(&self, now: CoarseTime, policy: Option<FlowPolicy>) -> bool {
        let allowed = match policy {
            Some(FlowPolicy {
                generation,
                timeouts,
            }) if generation == self.to_service.generation => match self.tcp_state() {
                Some(TcpState::Established | TcpState::HalfClosed) => timeouts.tcp_established,
                Some(_) => timeouts.tcp_transitory,
                None => timeouts.udp,
            },
            _ => REVOKED_TTL,
        };
        ticks_to_seconds(now.since(self.last_seen())) > u64::from(allowed)
    }
}

/// Whether an entry that has no partner may go.
#[must_use]
pub fn is_orphan_expired<F: Family>(entry: &Flow<F>, now: CoarseTime) -> bool {
    ticks_to_seconds(now.since(CoarseTime(entry.last_seen))) > u64::from(ORPHAN_TTL)
}

/// Whether an entry was used so lately that nothing of it can have expired.
#[must_use]
pub fn is_recent<F: Family>(entry: &Flow<F>, now: CoarseTime) -> bool {
    ticks_to_seconds(now.since(CoarseTime(entry.last_seen)))
        < u64::from(Timeouts::MIN_SECONDS.min(ORPHAN_TTL))
}

/// Whole seconds of so many ticks.
#[must_use]
pub fn ticks_to_seconds(ticks: u32) -> u64 {
    CoarseTime(ticks).nanoseconds() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use gateway_common::{V4, flow::NetworkProto};

    use super::*;

    const GENERATION: u32 = 7;

    fn pair(
        protocol: u8,
        to_service: TcpFlagsSeen,
        to_consumer: TcpFlagsSeen,
        last_seen: u32,
    ) -> FlowPair<V4> {
        let flow = |seen: TcpFlagsSeen, direction: Direction| Flow {
            tcp_flags_seen: seen.0,
            last_seen,
            generation: GENERATION,
            direction: direction as u8,
            ..Flow::default()
        };
        FlowPair {
            key: FlowKey {
                network_proto: NetworkProto::new(1, protocol),
                ..FlowKey::default()
            },
            to_service: flow(to_service, Direction::ToService),
            to_consumer: flow(to_consumer, Direction::ToConsumer),
        }
    }

    /// After how many seconds it is gone, to within a tick.
    fn lifetime(pair: &FlowPair<V4>, policy: Option<FlowPolicy>) -> u64 {
        let last = pair.last_seen().0;
        let ticks = (0..)
            .find(|age| pair.is_expired(CoarseTime(last + age), policy))
            .unwrap();
        ticks_to_seconds(ticks)
    }

    #[test]
    fn each_state_has_its_timeout() {
        let timeouts = Timeouts {
            tcp_established: 500,
            tcp_transitory: 40,
            udp: 90,
        };
        let policy = Some(FlowPolicy {
            generation: GENERATION,
            timeouts,
        });
        let (syn, ack, fin) = (TcpFlagsSeen::SYN, TcpFlagsSeen::ACK, TcpFlagsSeen::FIN);
        let open = syn.union(ack);
        for (protocol, forward, back, expected) in [
            (protocol::TCP, syn, TcpFlagsSeen::NONE, 40),
            (protocol::TCP, syn, open, 40),
            (protocol::TCP, open, open, 500),
            (protocol::TCP, open.union(fin), open, 500),
            (protocol::TCP, open.union(fin), open.union(fin), 40),
            (protocol::TCP, open.union(TcpFlagsSeen::RST), open, 40),
            (protocol::UDP, ack, TcpFlagsSeen::NONE, 90),
            (protocol::UDP, ack, ack, 90),
        ] {
            let lived = lifetime(&pair(protocol, forward, back, 1_000), policy);
            assert!(
                (expected + 1..=expected + 2).contains(&lived),
                "{forward:?} {back:?}: {lived}"
            );
        }
    }

    #[test]
    fn revoked_flows_expire_after_revoked_ttl() {
        let flow = pair(protocol::TCP, TcpFlagsSeen::ACK, TcpFlagsSeen::ACK, 1_000);
        let other = FlowPolicy {
            generation: GENERATION + 1,
            timeouts: Timeouts::default(),
        };
        for policy in [None, Some(other)] {
            assert!((61..=62).contains(&lifetime(&flow, policy)));
        }
    }

    #[test]
    fn last_seen_is_the_later_of_both_directions() {
        let mut flow = pair(protocol::UDP, TcpFlagsSeen::ACK, TcpFlagsSeen::ACK, 1_000);
        flow.to_consumer.last_seen = 1_200;
        assert_eq!(flow.last_seen(), CoarseTime(1_200));
    }
}
