//! When an idle flow's entries are removed. Pure.

use gateway_common::{
    Family,
    flow::{Direction, Flow, FlowKey, Seen, TcpState, Tick},
    packet::protocol,
};

use crate::model::service::Timeouts;

/// How long the entries of a flow stay whose connection has been cut, in seconds: so long the peers'
/// packets are answered with a reset that names the reason.
const REVOKED: u32 = 60;

/// How long a flow of which only one direction's entry is left stays, in seconds. Pairs are inserted
/// and moved one entry after the other, so a half may be seen that is about to be a whole.
const HALF: u32 = 10;

/// What is known of the connection that a flow belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its generation now.
    pub generation: u32,
    /// Its service's timeouts.
    pub timeouts: Timeouts,
}

/// A flow, put together of its two entries.
#[derive(Clone, Copy, Debug)]
pub struct Pair<F: Family> {
    /// The key of the consumer's direction.
    pub key: FlowKey<F>,
    /// The consumer's direction.
    pub to_service: Flow<F>,
    /// The other one.
    pub to_consumer: Flow<F>,
}

impl<F: Family> Pair<F> {
    /// Puts an entry and the one that is under its reverse key together, if they belong together.
    #[must_use]
    pub fn of(key: FlowKey<F>, entry: Flow<F>, reverse: Flow<F>) -> Option<Self> {
        if reverse.reverse_key(key.realm.protocol()) != key {
            return None;
        }
        match (entry.direction(), reverse.direction()) {
            (Direction::ToService, Direction::ToConsumer) => Some(Self {
                key,
                to_service: entry,
                to_consumer: reverse,
            }),
            (Direction::ToConsumer, Direction::ToService) => Some(Self {
                key: entry.reverse_key(key.realm.protocol()),
                to_service: reverse,
                to_consumer: entry,
            }),
            _ => None,
        }
    }

    /// The TCP state, if it is TCP.
    #[must_use]
    pub fn tcp_state(&self) -> Option<TcpState> {
        (self.key.realm.protocol() == protocol::TCP)
            .then(|| TcpState::of(Seen(self.to_service.seen), Seen(self.to_consumer.seen)))
    }

    /// When the last packet passed, either way.
    #[must_use]
    pub fn last_seen(&self) -> Tick {
        Tick(self.to_service.last_seen.max(self.to_consumer.last_seen))
    }

    /// Whether the flow has been idle for longer than it may.
    #[must_use]
    pub fn expired(&self, now: Tick, standing: Option<Standing>) -> bool {
        let allowed = match standing {
            Some(Standing {
                generation,
                timeouts,
            }) if generation == self.to_service.generation => match self.tcp_state() {
                Some(TcpState::Established | TcpState::HalfClosed) => timeouts.tcp_established,
                Some(_) => timeouts.tcp_transitory,
                None => timeouts.udp,
            },
            _ => REVOKED,
        };
        seconds(now.since(self.last_seen())) > u64::from(allowed)
    }
}

/// Whether an entry that has no partner may go.
#[must_use]
pub fn half_expired<F: Family>(entry: &Flow<F>, now: Tick) -> bool {
    seconds(now.since(Tick(entry.last_seen))) > u64::from(HALF)
}

/// Whether an entry was used so lately that nothing of it can have expired.
#[must_use]
pub fn is_recent<F: Family>(entry: &Flow<F>, now: Tick) -> bool {
    seconds(now.since(Tick(entry.last_seen))) < u64::from(Timeouts::SHORTEST.min(HALF))
}

/// Whole seconds of so many ticks.
#[must_use]
pub fn seconds(ticks: u32) -> u64 {
    Tick(ticks).nanoseconds() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use gateway_common::{V4, flow::Realm};

    use super::*;

    const GENERATION: u32 = 7;

    fn pair(protocol: u8, to_service: Seen, to_consumer: Seen, last_seen: u32) -> Pair<V4> {
        let flow = |seen: Seen, direction: Direction| Flow {
            seen: seen.0,
            last_seen,
            generation: GENERATION,
            direction: direction as u8,
            ..Flow::default()
        };
        Pair {
            key: FlowKey {
                realm: Realm::new(1, protocol),
                ..FlowKey::default()
            },
            to_service: flow(to_service, Direction::ToService),
            to_consumer: flow(to_consumer, Direction::ToConsumer),
        }
    }

    /// After how many seconds it is gone, to within a tick.
    fn lifetime(pair: &Pair<V4>, standing: Option<Standing>) -> u64 {
        let last = pair.last_seen().0;
        let ticks = (0..)
            .find(|age| pair.expired(Tick(last + age), standing))
            .unwrap();
        seconds(ticks)
    }

    #[test]
    fn each_state_has_its_timeout() {
        let timeouts = Timeouts {
            tcp_established: 500,
            tcp_transitory: 40,
            udp: 90,
        };
        let standing = Some(Standing {
            generation: GENERATION,
            timeouts,
        });
        let (syn, ack, fin) = (Seen::SYN, Seen::ACK, Seen::FIN);
        let open = syn.and(ack);
        for (protocol, forward, back, wanted) in [
            (protocol::TCP, syn, Seen::NONE, 40),
            (protocol::TCP, syn, open, 40),
            (protocol::TCP, open, open, 500),
            (protocol::TCP, open.and(fin), open, 500),
            (protocol::TCP, open.and(fin), open.and(fin), 40),
            (protocol::TCP, open.and(Seen::RST), open, 40),
            (protocol::UDP, ack, Seen::NONE, 90),
            (protocol::UDP, ack, ack, 90),
        ] {
            let lived = lifetime(&pair(protocol, forward, back, 1_000), standing);
            assert!(
                (wanted + 1..=wanted + 2).contains(&lived),
                "{forward:?} {back:?}: {lived}"
            );
        }
    }

    #[test]
    fn cut_connections_are_forgotten_soon() {
        let flow = pair(protocol::TCP, Seen::ACK, Seen::ACK, 1_000);
        let other = Standing {
            generation: GENERATION + 1,
            timeouts: Timeouts::default(),
        };
        for standing in [None, Some(other)] {
            assert!((61..=62).contains(&lifetime(&flow, standing)));
        }
    }

    #[test]
    fn the_later_packet_counts() {
        let mut flow = pair(protocol::UDP, Seen::ACK, Seen::ACK, 1_000);
        flow.to_consumer.last_seen = 1_200;
        assert_eq!(flow.last_seen(), Tick(1_200));
    }
}
