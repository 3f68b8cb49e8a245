//! Neighbour table: the states of wanted neighbours (RFC 4861, section 7.3.2), and the schedule of solicitations.
//!
//! The table differs from a host's in that every neighbour counts as used all the time: the data path sends to it
//! without asking. A neighbour is thus confirmed again when its time is over, rather than when a packet is sent.

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
    message::{MessageKind, NeighbourMessage},
    wanted::WantedNeighbours,
};

/// Interval between solicitations that are not answered (RFC 4861, section 10: `RETRANS_TIMER`).
pub const RETRANSMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Number of unanswered solicitations after which a neighbour is no longer reachable.
pub const PROBE_NUM: u32 = 3;

/// Shortest time after which a reachable neighbour is confirmed again.
const MIN_REACHABLE_TIME: Duration = Duration::from_secs(15);

/// Width of the interval from which that time is chosen, so that neighbours are not confirmed all at once.
const REACHABLE_TIME_SPREAD_MS: u64 = 15_000;

/// Time after an update for which the ARP reply of another host is ignored: the first answer wins where several hosts
/// answer. Announcements are ignored for as long after one that replaced a MAC address: hosts that claim an address in
/// turn cause at most one change in this time.
const LOCK_TIME: Duration = Duration::from_secs(1);

/// Number of solicitations in a `PACING_INTERVAL`. Broadcast frames reach every host of a network.
const MAX_PER_PACING_INTERVAL: u32 = 40;

/// Length of the interval in which solicitations are counted.
const PACING_INTERVAL: Duration = Duration::from_millis(20);

/// State of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// Time at which the neighbour is solicited.
    due: Option<Instant>,
    unanswered: Option<Unanswered>,
    /// Number of steps since the last answer, including those in which nothing could be sent.
    missed: u32,
    /// Time of the last solicitation.
    asked: Option<Instant>,
    /// Time of the last change of the MAC address.
    updated: Option<Instant>,
    /// Time at which a MAC address last replaced another one.
    replaced: Option<Instant>,
    /// Time of the last answer to a solicitation from the present MAC address.
    confirmed: Option<Instant>,
    /// True if the next solicitation is for all hosts, because the neighbour may have another MAC address by now.
    ask_all: bool,
}

impl Entry {
    const fn mac(&self) -> Option<Mac> {
        match self.state {
            State::Incomplete => None,
            State::Reachable(mac) | State::Stale(mac) | State::Probe(mac) | State::Static(mac) => {
                Some(mac)
            }
        }
    }

    /// Returns the first time at which the neighbour may be solicited again.
    fn earliest(&self, now: Instant) -> Instant {
        let earliest = self.asked.map(|at| at + RETRANSMIT_INTERVAL);
        earliest.map_or(now, |at| at.max(now))
    }

    /// Returns the time of the next solicitation if there is reason to ask soon. A neighbour that waits already keeps
    /// its place.
    fn ask_soon(&self, now: Instant) -> Instant {
        let earliest = self.earliest(now);
        self.due.map_or(earliest, |due| due.min(earliest))
    }

    /// Returns true if a message must not replace the MAC address, because another one did so a short time ago.
    fn is_locked(&self, message: &NeighbourMessage, now: Instant) -> bool {
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
    /// The same neighbours, for readers without access to the table.
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

/// Returns the state of a neighbour after its message, or `None` if the message changes nothing.
fn next_state(entry: &Entry, message: &NeighbourMessage, now: Instant) -> Option<State> {
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

/// Returns the time for which a confirmation counts. It differs between neighbours and between confirmations.
fn reachable_time(neighbour: Neighbour, updated: Option<Instant>, now: Instant) -> Duration {
    let hash = FixedState::default().hash_one((neighbour, updated, now));
    MIN_REACHABLE_TIME + Duration::from_millis(hash % REACHABLE_TIME_SPREAD_MS)
}

#[cfg(test)]
mod tests;
