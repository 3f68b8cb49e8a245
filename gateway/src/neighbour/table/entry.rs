//! Entry of the neighbour table, and what a message means for it.

use std::time::{Duration, Instant};

use gateway_common::packet::Mac;

use crate::neighbour::{
    Sender,
    message::{MessageKind, NeighbourMessage},
};

/// Interval between solicitations that are not answered (RFC 4861, section 10: `RETRANS_TIMER`).
pub const RETRANSMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Time after an update for which the ARP reply of another host is ignored: the first answer wins where several hosts
/// answer. Announcements are ignored for as long after one that replaced a MAC address: hosts that claim an address in
/// turn cause at most one change in this time.
pub(super) const LOCK_TIME: Duration = Duration::from_secs(1);

/// State of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The MAC address is not known. It is asked for.
    Incomplete,
    /// The MAC address was confirmed.
    Reachable(Mac),
    /// The MAC address comes from elsewhere than an answer to a solicitation. It is used, and to be confirmed.
    Stale(Mac),
    /// The MAC address is used, and is being confirmed.
    Probe(Mac),
    /// The operator has set the MAC address. Nothing is asked for.
    Static(Mac),
}

/// Solicitations since the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Time of the first one.
    pub since: Instant,
    /// Number of solicitations that were sent.
    pub count: u64,
    /// Sender of the last one.
    pub sender: Sender,
}

/// Neighbour as the table knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    /// Time at which the neighbour is solicited.
    pub(super) due: Option<Instant>,
    pub(super) unanswered: Option<Unanswered>,
    /// Number of steps since the last answer, including those in which nothing could be sent.
    pub(super) missed: u32,
    /// Time of the last solicitation.
    pub(super) asked: Option<Instant>,
    /// Time of the last change of the MAC address.
    pub(super) updated: Option<Instant>,
    /// Time at which a MAC address last replaced another one.
    pub(super) replaced: Option<Instant>,
    /// Time of the last answer to a solicitation from the present MAC address.
    pub(super) confirmed: Option<Instant>,
    /// True if the next solicitation is for all hosts, because the neighbour may have another MAC address by now.
    pub(super) ask_all: bool,
}

impl Entry {
    pub(super) const fn mac(&self) -> Option<Mac> {
        match self.state {
            State::Incomplete => None,
            State::Reachable(mac) | State::Stale(mac) | State::Probe(mac) | State::Static(mac) => {
                Some(mac)
            }
        }
    }

    /// Returns the first time at which the neighbour may be solicited again.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        let earliest = self.asked.map(|at| at + RETRANSMIT_INTERVAL);
        earliest.map_or(now, |at| at.max(now))
    }

    /// Returns the time of the next solicitation if there is reason to ask soon. A neighbour that waits already keeps
    /// its place.
    pub(super) fn ask_soon(&self, now: Instant) -> Instant {
        let earliest = self.earliest(now);
        self.due.map_or(earliest, |due| due.min(earliest))
    }

    /// Returns true if a message must not replace the MAC address, because another one did so a short time ago.
    pub(super) fn is_locked(&self, message: &NeighbourMessage, now: Instant) -> bool {
        let is_claim = match message.kind {
            // The time of the last update counts, not only that of a replacement.
            MessageKind::ArpReply => false,
            MessageKind::Announcement | MessageKind::Solicitation => true,
            // An answer is one only after a question.
            MessageKind::Advertisement {
                solicited,
                overrides,
            } => overrides && !(solicited && self.unanswered.is_some()),
        };
        let is_other = match (self.mac(), message.mac) {
            (Some(known), Some(mac)) => known != mac,
            _ => false,
        };
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LOCK_TIME;
        is_claim && is_other && self.replaced.is_some_and(is_recent)
    }
}

/// Returns the state of a neighbour after its message, or `None` if the message changes nothing.
pub(super) fn next_state(entry: &Entry, message: &NeighbourMessage, now: Instant) -> Option<State> {
    let known = entry.mac();
    match (message.kind, message.mac.or(known)) {
        // A neighbour that leaves out its MAC address can't be resolved by that (RFC 4861, section 7.2.5).
        (_, None) => None,
        (MessageKind::ArpReply, Some(mac)) => {
            let is_locked = entry
                .updated
                .is_some_and(|at| now.saturating_duration_since(at) < LOCK_TIME);
            let is_other = known.is_some_and(|known| known != mac);
            (!is_other || !is_locked).then_some(State::Reachable(mac))
        }
        // Messages that are no answer are no proof that the neighbour receives frames (RFC 4861, section 7.3.1).
        (MessageKind::Announcement | MessageKind::Solicitation, Some(mac)) => {
            (known != Some(mac)).then_some(State::Stale(mac))
        }
        // RFC 4861, section 7.2.5.
        (
            MessageKind::Advertisement {
                solicited,
                overrides,
            },
            Some(mac),
        ) => {
            if known.is_some_and(|known| known != mac) && !overrides {
                return match entry.state {
                    State::Reachable(known) => Some(State::Stale(known)),
                    _ => None,
                };
            }
            if solicited {
                return Some(State::Reachable(mac));
            }
            (known != Some(mac)).then_some(State::Stale(mac))
        }
    }
}
