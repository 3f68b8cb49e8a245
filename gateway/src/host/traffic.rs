//! Traffic of attachments: when something was received last, and which frames were dropped or lost. Pure.

use std::collections::BTreeMap;

use gateway_common::DropReason;
use jiff::{SignedDuration, Timestamp};

/// Time without further losses after which a loss is no problem any more.
const LOSS_PROBLEM_TIME: SignedDuration = SignedDuration::from_secs(60);

/// Traffic of an attachment's interface, as the agent has watched it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentTraffic {
    /// Index of the interface. Another interface of the same name has counters of its own.
    pub ifindex: u32,
    /// Time since which the agent watches the interface.
    pub watched_since: Timestamp,
    /// Packets that the interface has received since it exists.
    pub received_packets: u64,
    /// Last time at which the agent saw that number grow.
    pub last_received_at: Option<Timestamp>,
    /// Numbers of frames that were dropped after they had arrived here, and of those that the interface did not take.
    pub drops: BTreeMap<DropReason, u64>,
    /// Recent frames that the interface did not take.
    losses: Option<Losses>,
}

/// Frames that an interface did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Losses {
    first_at: Timestamp,
    last_at: Timestamp,
    frames: u64,
}

impl AttachmentTraffic {
    /// Returns the traffic of an interface that is watched from now on.
    #[must_use]
    pub const fn new(
        ifindex: u32,
        now: Timestamp,
        received_packets: u64,
        drops: BTreeMap<DropReason, u64>,
    ) -> Self {
        Self {
            ifindex,
            watched_since: now,
            received_packets,
            last_received_at: None,
            drops,
            losses: None,
        }
    }

    /// Records the counters of the interface. Returns the number of frames that were lost, if a loss has begun.
    pub fn update(
        &mut self,
        now: Timestamp,
        received_packets: u64,
        drops: BTreeMap<DropReason, u64>,
    ) -> Option<u64> {
        if received_packets != self.received_packets {
            self.last_received_at = Some(now);
            self.received_packets = received_packets;
        }
        let count = |drops: &BTreeMap<DropReason, u64>| {
            let count = drops.get(&DropReason::TransmitFailed);
            count.copied().unwrap_or(0)
        };
        let lost = count(&drops).saturating_sub(count(&self.drops));
        self.drops = drops;
        if lost == 0 {
            return None;
        }
        let recent = self.losses.filter(|losses| losses.is_recent(now));
        self.losses = Some(Losses {
            first_at: recent.map_or(now, |losses| losses.first_at),
            last_at: now,
            frames: lost + recent.map_or(0, |losses| losses.frames),
        });
        recent.is_none().then_some(lost)
    }

    /// Returns the problem of frames that the interface did not take, if there are recent ones.
    #[must_use]
    pub fn problem(&self, interface: &str, now: Timestamp) -> Option<String> {
        let losses = self.losses.filter(|losses| losses.is_recent(now))?;
        let Losses {
            first_at, frames, ..
        } = losses;
        Some(format!(
            "{interface} did not take {frames} frames since {first_at:.0}, and they are lost: if it is a veth, run \
             `ethtool -K FAR_END gro on` where its far end is, and give both ends the same MTU; otherwise its transmit \
             queue is full, as `ethtool -S {interface}` may show"
        ))
    }
}

impl Losses {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.last_at) < LOSS_PROBLEM_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn lost(frames: u64) -> BTreeMap<DropReason, u64> {
        BTreeMap::from([(DropReason::TransmitFailed, frames)])
    }

    #[test]
    fn reception_is_dated_when_the_counter_moves() {
        let mut traffic = AttachmentTraffic::new(4, at(0), 7, BTreeMap::new());
        assert_eq!(traffic.update(at(1), 7, BTreeMap::new()), None);
        assert_eq!(traffic.last_received_at, None);
        traffic.update(at(2), 8, BTreeMap::new());
        traffic.update(at(3), 8, BTreeMap::new());
        assert_eq!(traffic.last_received_at, Some(at(2)));
        assert_eq!(traffic.watched_since, at(0));
    }

    #[test]
    fn losses_are_a_problem_for_a_minute_after_the_last() {
        // What was lost before the agent began to watch is counted, and no problem of now.
        let mut traffic = AttachmentTraffic::new(4, at(0), 0, lost(5));
        assert_eq!(traffic.problem("gw-a", at(0)), None);
        assert_eq!(traffic.update(at(1), 0, lost(8)), Some(3));
        assert_eq!(traffic.update(at(59), 0, lost(10)), None);
        let problem = traffic.problem("gw-a", at(118)).unwrap();
        assert!(
            problem.contains("gw-a did not take 5 frames since 2023-11-14T22:13:21Z"),
            "{problem}"
        );
        assert_eq!(traffic.problem("gw-a", at(119)), None);
        assert_eq!(traffic.update(at(200), 0, lost(11)), Some(1));
        assert!(
            traffic
                .problem("gw-a", at(200))
                .unwrap()
                .contains(" 1 frames")
        );
    }
}
