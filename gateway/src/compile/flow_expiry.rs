//! Expiry of idle flows, by which garbage collection removes their entries. Pure.

use gateway_common::{
    Family,
    flow::{CoarseTime, Direction, Flow, FlowKey, TcpFlagsSeen, TcpState},
    packet::protocol,
};

use crate::model::service::Timeouts;

/// Seconds for which the entries of a revoked flow stay. Meanwhile packets of both peers are rejected, and counted with
/// the drop reason.
const REVOKED_TTL: u32 = 60;

/// Seconds for which an entry without its reverse entry stays. The two entries are inserted and moved one after the
/// other, so that an entry may be seen alone for a moment.
const ORPHAN_TTL: u32 = 10;

/// Generation and timeouts of the connection that a flow belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPolicy {
    /// Present generation of the connection.
    pub generation: u32,
    /// Timeouts of the connection's service.
    pub timeouts: Timeouts,
}

/// The two entries of a flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowPair<F: Family> {
    /// Key of the entry towards the service.
    pub key: FlowKey<F>,
    /// Entry for packets from the consumer to the service.
    pub to_service: Flow<F>,
    /// Entry for packets from the service to the consumer.
    pub to_consumer: Flow<F>,
}

impl<F: Family> FlowPair<F> {
    /// Pairs an entry with the one found under its reverse key. Returns `None` if they belong to different flows.
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

    /// Returns the TCP state, or `None` if the flow is not TCP.
    #[must_use]
    pub fn tcp_state(&self) -> Option<TcpState> {
        (self.key.network_proto.protocol() == protocol::TCP).then(|| {
            TcpState::from_flags_seen(
                TcpFlagsSeen(self.to_service.tcp_flags_seen),
                TcpFlagsSeen(self.to_consumer.tcp_flags_seen),
            )
        })
    }

    /// Returns the time of the last packet, in either direction.
    #[must_use]
    pub fn last_seen(&self) -> CoarseTime {
        CoarseTime(self.to_service.last_seen.max(self.to_consumer.last_seen))
    }

    /// Returns true if the flow has been idle for longer than its timeout.
    ///
    /// The timeout of a flow whose connection is gone or has another generation is `REVOKED_TTL`.
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

/// Returns true if an entry without its reverse entry has been idle for longer than `ORPHAN_TTL`.
#[must_use]
pub fn is_orphan_expired<F: Family>(entry: &Flow<F>, now: CoarseTime) -> bool {
    ticks_to_seconds(now.since(CoarseTime(entry.last_seen))) > u64::from(ORPHAN_TTL)
}

/// Returns true if an entry was used so recently that no timeout can have passed.
#[must_use]
pub fn is_recent<F: Family>(entry: &Flow<F>, now: CoarseTime) -> bool {
    ticks_to_seconds(now.since(CoarseTime(entry.last_seen)))
        < u64::from(Timeouts::MIN_SECONDS.min(ORPHAN_TTL))
}

/// Converts ticks of [`CoarseTime`] to whole seconds.
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

    /// Returns the number of idle seconds after which the flow is expired, to within a tick.
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
