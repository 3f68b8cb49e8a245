//! Neighbour table: the states of wanted neighbours (RFC 4861, section 7.3.2), and the schedule of solicitations.
//!
//! The table differs from a host's in that every neighbour counts as used all the time: the data path sends to it
//! without asking. A neighbour is thus confirmed again when its time is over, rather than when a packet is sent.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use gateway_common::packet::Mac;

use crate::neighbour::{
    Neighbour, Sender, is_host_mac,
    message::NeighbourMessage,
    table::entry::{Entry, State, next_state},
    wanted::WantedNeighbours,
};

pub use entry::{RETRANSMIT_INTERVAL, Unanswered};

/// Number of unanswered solicitations after which a neighbour is no longer reachable.
pub const PROBE_NUM: u32 = 3;

/// Shortest time after which a reachable neighbour is confirmed again.
const MIN_REACHABLE_TIME: Duration = Duration::from_secs(15);

/// Width of the interval from which that time is chosen, so that neighbours are not confirmed all at once.
const REACHABLE_TIME_SPREAD_MS: u64 = 15_000;

/// Number of solicitations in a `PACING_INTERVAL`. Broadcast frames reach every host of a network.
const MAX_PER_PACING_INTERVAL: u32 = 40;

/// Length of the interval in which solicitations are counted.
const PACING_INTERVAL: Duration = Duration::from_millis(20);

/// Solicitation to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Neighbour whose MAC address is asked for.
    pub neighbour: Neighbour,
    /// MAC address that it is sent to; `None` to ask all hosts.
    pub destination: Option<Mac>,
    /// Address that asks.
    pub sender: Sender,
}

/// Neighbours that are wanted, and their states.
#[derive(Debug, Default)]
pub struct NeighbourTable {
    entries: BTreeMap<Neighbour, Entry>,
    /// Neighbours by the time of their next solicitation.
    schedule: BTreeSet<(Instant, Neighbour)>,
    /// Neighbours of the table, for readers without access to it.
    wanted: Arc<WantedNeighbours>,
    /// Neighbours whose MAC address changed, or that did not answer for the first time, since the last
    /// [`Self::take_changed`].
    changed: BTreeSet<Neighbour>,
    /// Start of the present pacing interval, and the number of solicitations in it.
    pacing: Option<(Instant, u32)>,
}

impl NeighbourTable {
    /// Returns the set of wanted neighbours, which follows the table.
    #[must_use]
    pub fn wanted(&self) -> Arc<WantedNeighbours> {
        Arc::clone(&self.wanted)
    }

    /// Adds a neighbour, which is then resolved for as long as it is wanted. `known` is its MAC address as far as it is
    /// known from elsewhere: it is used until the neighbour's own answer says otherwise.
    pub fn want(&mut self, neighbour: Neighbour, known: Option<Mac>, now: Instant) {
        if self.entries.contains_key(&neighbour) {
            return;
        }
        let known = known.filter(|mac| is_host_mac(*mac));
        let entry = Entry {
            state: known.map_or(State::Incomplete, State::Stale),
            due: None,
            unanswered: None,
            missed: 0,
            asked: None,
            updated: None,
            replaced: None,
            confirmed: None,
            ask_all: true,
        };
        self.entries.insert(neighbour, entry);
        self.wanted.insert(neighbour);
        self.changed.insert(neighbour);
        self.reschedule(neighbour, Some(now));
    }

    /// Removes a neighbour.
    pub fn unwant(&mut self, neighbour: &Neighbour) {
        if let Some(due) = self.entries.remove(neighbour).and_then(|entry| entry.due) {
            self.schedule.remove(&(due, *neighbour));
        }
        self.wanted.remove(neighbour);
        self.changed.remove(neighbour);
    }

    /// Sets the MAC address that the operator has configured for a neighbour; `None` if there is none.
    pub fn set_static(&mut self, neighbour: Neighbour, mac: Option<Mac>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        let (state, due) = match (entry.state, mac) {
            (State::Static(old), Some(mac)) if old == mac => return,
            (_, Some(mac)) => (State::Static(mac), None),
            (State::Static(old), None) => (State::Stale(old), Some(entry.earliest(now))),
            (_, None) => return,
        };
        entry.state = state;
        entry.unanswered = None;
        entry.missed = 0;
        entry.confirmed = None;
        entry.ask_all = true;
        self.changed.insert(neighbour);
        self.reschedule(neighbour, due);
    }

    /// Confirms a neighbour now, because something indicates that it may not be reachable any more. One that has just
    /// answered is confirmed a second after that. `ask_all` states that it probably has another MAC address.
    pub fn recheck(&mut self, neighbour: Neighbour, ask_all: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        if !matches!(entry.state, State::Reachable(_)) {
            return;
        }
        entry.ask_all |= ask_all;
        let earliest = entry.confirmed.map_or(now, |at| at + RETRANSMIT_INTERVAL);
        let due = entry.ask_soon(now.max(earliest));
        self.reschedule(neighbour, Some(due));
    }

    /// Confirms all neighbours on an interface now.
    pub fn recheck_interface(&mut self, ifindex: u32, now: Instant) {
        let first = (ifindex, IpAddr::from([0, 0, 0, 0]));
        let neighbours = self.entries.range(first..).map(|(neighbour, _)| *neighbour);
        let neighbours: Vec<Neighbour> = neighbours.take_while(|(on, _)| *on == ifindex).collect();
        for neighbour in neighbours {
            self.recheck(neighbour, false, now);
        }
    }

    /// Handles a message of a neighbour. Messages of others are ignored, and so are messages with a MAC address that no
    /// host can have.
    pub fn on_message(&mut self, ifindex: u32, message: &NeighbourMessage, now: Instant) {
        let neighbour = (ifindex, message.address);
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        if message.mac.is_some_and(|mac| !is_host_mac(mac))
            || matches!(entry.state, State::Static(_))
        {
            return;
        }
        if entry.is_locked(message, now) {
            // The later host may be the right one, so all are asked. That the earlier one answered counts no more.
            entry.ask_all = true;
            let due = entry.ask_soon(now);
            self.reschedule(neighbour, Some(due));
            return;
        }
        let Some(next) = next_state(entry, message, now) else {
            return;
        };
        let before = entry.mac();
        let was_confirmed = matches!(entry.state, State::Reachable(_));
        entry.state = next;
        let is_changed = entry.mac() != before;
        if is_changed {
            entry.updated = Some(now);
            entry.replaced = before.map(|_| now).or(entry.replaced);
            entry.confirmed = None;
            self.changed.insert(neighbour);
        }
        let due = if matches!(next, State::Reachable(_)) {
            if entry.confirmed.replace(now).is_none() {
                self.changed.insert(neighbour);
            }
            entry.unanswered = None;
            entry.missed = 0;
            entry.ask_all = false;
            Some(now + reachable_time(neighbour, entry.updated, now))
        } else if is_changed || was_confirmed {
            // The host itself sent the message, so it is asked directly.
            entry.ask_all = false;
            entry.unanswered = None;
            entry.missed = 0;
            Some(entry.ask_soon(now))
        } else {
            entry.due
        };
        self.reschedule(neighbour, due);
    }

    /// Returns the solicitations that are due. `sender` selects the address that asks for a neighbour; without one
    /// nothing is sent, and it is selected again a second later: the neighbour can't be confirmed meanwhile, which counts
    /// as a missing answer.
    pub fn step(
        &mut self,
        now: Instant,
        mut sender: impl FnMut(&Neighbour) -> Sender,
    ) -> Vec<Solicitation> {
        let mut solicitations = Vec::new();
        let (start, mut count) = self.pacing.unwrap_or((now, 0));
        let start = if now.saturating_duration_since(start) >= PACING_INTERVAL {
            count = 0;
            now
        } else {
            start
        };
        while count < MAX_PER_PACING_INTERVAL {
            let is_due = |(at, _): &(Instant, Neighbour)| *at <= now;
            if !self.schedule.first().is_some_and(is_due) {
                break;
            }
            let Some((_, neighbour)) = self.schedule.pop_first() else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&neighbour) else {
                continue;
            };
            entry.due = None;
            let sender = sender(&neighbour);
            let can_send = sender.can_send();
            if can_send && entry.unanswered.is_some_and(|last| !last.sender.can_send()) {
                // Nobody was asked before, so the neighbour has its time to answer only now.
                entry.unanswered = None;
                entry.missed = 0;
                self.changed.insert(neighbour);
            }
            let sent = entry.unanswered.map_or(0, |unanswered| unanswered.count);
            let mut destination = None;
            match entry.state {
                State::Static(_) => continue,
                State::Probe(_) if entry.missed >= PROBE_NUM => {
                    entry.state = State::Incomplete;
                    entry.confirmed = None;
                    self.changed.insert(neighbour);
                }
                State::Reachable(mac) | State::Stale(mac) | State::Probe(mac) => {
                    // Only the first solicitation is for the known MAC address. The others find a neighbour that has
                    // another one by now while the known one is still in use.
                    destination = Some(mac).filter(|_| sent == 0 && !entry.ask_all);
                    entry.state = State::Probe(mac);
                }
                State::Incomplete => {}
            }
            entry.missed = entry.missed.saturating_add(1);
            let is_first_miss = sent == 1 && entry.state == State::Incomplete;
            let is_sender_new = entry
                .unanswered
                .map_or(!can_send, |last| last.sender != sender);
            if is_first_miss || is_sender_new {
                self.changed.insert(neighbour);
            }
            entry.unanswered = Some(Unanswered {
                since: entry.unanswered.map_or(now, |unanswered| unanswered.since),
                count: sent + u64::from(can_send),
                sender,
            });
            if can_send {
                entry.asked = Some(now);
                entry.ask_all = false;
            }
            self.reschedule(neighbour, Some(now + RETRANSMIT_INTERVAL));
            if can_send {
                count += 1;
                solicitations.push(Solicitation {
                    neighbour,
                    destination,
                    sender,
                });
            }
        }
        self.pacing = Some((start, count));
        solicitations
    }

    /// Returns the time of the next step that does something, if there is one.
    #[must_use]
    pub fn next_step(&self) -> Option<Instant> {
        let (due, _) = self.schedule.first()?;
        match self.pacing {
            Some((start, count)) if count >= MAX_PER_PACING_INTERVAL => {
                Some((*due).max(start + PACING_INTERVAL))
            }
            _ => Some(*due),
        }
    }

    /// Returns the neighbour's MAC address, if it is known.
    #[must_use]
    pub fn mac(&self, neighbour: &Neighbour) -> Option<Mac> {
        self.entries.get(neighbour)?.mac()
    }

    /// Returns true if the neighbour has answered with its present MAC address, or needs no answer.
    #[must_use]
    pub fn is_confirmed(&self, neighbour: &Neighbour) -> bool {
        let entry = self.entries.get(neighbour);
        entry.is_some_and(|entry| {
            matches!(entry.state, State::Static(_)) || entry.confirmed.is_some()
        })
    }

    /// Returns the solicitations that the neighbour has not answered, if there are any.
    #[must_use]
    pub fn unanswered(&self, neighbour: &Neighbour) -> Option<Unanswered> {
        self.entries.get(neighbour)?.unanswered
    }

    /// Returns the neighbours whose MAC address, or whose reason for having none, changed since the last call, and those
    /// whose MAC address was confirmed for the first time.
    pub fn take_changed(&mut self) -> BTreeSet<Neighbour> {
        std::mem::take(&mut self.changed)
    }

    fn reschedule(&mut self, neighbour: Neighbour, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&neighbour) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut entry.due, due) {
            self.schedule.remove(&(old, neighbour));
        }
        if let Some(due) = due {
            self.schedule.insert((due, neighbour));
        }
    }
}

/// Returns the time for which a confirmation counts. It differs between neighbours and between confirmations.
fn reachable_time(neighbour: Neighbour, updated: Option<Instant>, now: Instant) -> Duration {
    let hash = FixedState::default().hash_one((neighbour, updated, now));
    MIN_REACHABLE_TIME + Duration::from_millis(hash % REACHABLE_TIME_SPREAD_MS)
}

#[cfg(test)]
mod tests;
