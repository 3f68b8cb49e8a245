//! Address conflict detection (RFC 5227; RFC 4862, section 5.4): probes an endpoint's address before it is used,
//! announces it, and defends it afterwards. Pure: the state machine takes observed conflicts, and returns the frames
//! to send.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use gateway_common::packet::Mac;

use crate::{
    config::ProbeConfig,
    model::{Reference, State},
};

/// Address in a network.
pub type NetworkAddress = (Reference, IpAddr);

/// Time after a conflict until the address is probed again (RFC 5227, section 2.1.1: after ten conflicts, at most
/// one attempt a minute).
const RETRY_AFTER_CONFLICT: Duration = Duration::from_secs(60);
/// Minimum time between two defences of an address (RFC 5227, section 2.4: DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Time for which a conflict is shown after it was last seen.
const CONFLICT_TTL: Duration = Duration::from_secs(60);
/// Number of announcements of a claimed address (RFC 5227: ANNOUNCE_NUM).
const ANNOUNCE_NUM: u32 = 2;
/// Time between two announcements (RFC 5227: ANNOUNCE_INTERVAL).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// Phase of an address in conflict detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimPhase {
    /// Number of sent probes, and the time of the next step.
    Probing(u32, Option<Instant>),
    /// The address is in use. Number of sent announcements, and the time of the next one.
    Claimed(u32, Option<Instant>),
    /// Another host has the address. Time at which it is probed again.
    Backoff(Instant),
}

/// Another host that uses the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConflictingHost {
    mac: Mac,
    last_seen: Instant,
    defended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AddressClaim {
    phase: ClaimPhase,
    conflict: Option<ConflictingHost>,
    /// Position in the schedule, if the address is scheduled.
    due: Option<Due>,
}

/// Time at which an address needs a step; `None` means at once.
type Due = Option<Instant>;

impl AddressClaim {
    const fn new(phase: ClaimPhase) -> Self {
        Self {
            phase,
            conflict: None,
            due: None,
        }
    }

    /// Returns the time of the next step, if there is one.
    fn next_due(&self) -> Option<Due> {
        let phase_due = match self.phase {
            ClaimPhase::Probing(_, next) => Some(next),
            ClaimPhase::Claimed(sent, next) => (sent < ANNOUNCE_NUM).then_some(next),
            ClaimPhase::Backoff(again) => Some(Some(again)),
        };
        let is_claimed = matches!(self.phase, ClaimPhase::Claimed(..));
        let conflict_due = self.conflict.filter(|_| is_claimed).map(|rival| {
            let expires = rival.last_seen + CONFLICT_TTL;
            match rival.defended {
                None => None,
                Some(at) if at < rival.last_seen => Some(expires.min(at + DEFEND_INTERVAL)),
                Some(_) => Some(expires),
            }
        });
        match (phase_due, conflict_due) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictAction {
    /// Probe of the address.
    Probe(NetworkAddress),
    /// Announcement of the address.
    Announce(NetworkAddress),
}

/// Status of an address, as shown to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimStatus {
    /// The address is being probed.
    Probing,
    /// The address is in use.
    InUse,
    /// The host with this MAC address has the address, so the endpoint does not use it.
    Conflict(Mac),
    /// The address is in use, and the host with this MAC address claims it too.
    Disputed(Mac),
}

/// Conflict detection for all endpoints' addresses.
#[derive(Debug)]
pub struct AddressConflictDetector {
    config: ProbeConfig,
    entries: BTreeMap<NetworkAddress, AddressClaim>,
    /// Addresses that are not in use yet.
    tentative: BTreeSet<NetworkAddress>,
    /// Addresses that became tentative or ceased to be since the last [`Self::take_changed`].
    changed: BTreeSet<NetworkAddress>,
    /// Addresses with a next step, by its time.
    schedule: BTreeSet<(Due, NetworkAddress)>,
    /// Addresses whose next step waits until their network is reachable.
    parked: BTreeSet<NetworkAddress>,
}

impl AddressConflictDetector {
    /// Returns a detector without addresses.
    #[must_use]
    pub const fn new(config: ProbeConfig) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            tentative: BTreeSet::new(),
            changed: BTreeSet::new(),
            schedule: BTreeSet::new(),
            parked: BTreeSet::new(),
        }
    }

    /// Adds addresses that were in use when the agent started. They are neither probed nor announced.
    pub fn adopt_in_use(&mut self, keys: impl IntoIterator<Item = NetworkAddress>) {
        let entry = AddressClaim::new(ClaimPhase::Claimed(ANNOUNCE_NUM, None));
        self.entries
            .extend(keys.into_iter().map(|key| (key, entry)));
    }

    /// Adds the addresses of all endpoints, and removes all others.
    pub fn retain_existing(&mut self, state: &State) {
        let mut existing = BTreeSet::new();
        for (reference, record) in &state.endpoints {
            let endpoint = &record.object;
            let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
            existing.extend(endpoint.addresses.iter().map(|a| (network.clone(), *a)));
        }
        let removed: Vec<NetworkAddress> = self
            .entries
            .keys()
            .filter(|key| !existing.contains(key))
            .cloned()
            .collect();
        for key in removed {
            self.remove(&key);
        }
        for key in existing {
            self.add(key);
        }
    }

    /// Adds an address, unless it is known.
    pub fn add(&mut self, key: NetworkAddress) {
        if self.entries.contains_key(&key) {
            return;
        }
        let phase = if self.config.probes == 0 {
            ClaimPhase::Claimed(0, None)
        } else {
            ClaimPhase::Probing(0, None)
        };
        self.entries.insert(key.clone(), AddressClaim::new(phase));
        self.reschedule(key);
    }

    /// Removes an address.
    pub fn remove(&mut self, key: &NetworkAddress) {
        if let Some(due) = self.entries.remove(key).and_then(|entry| entry.due) {
            self.schedule.remove(&(due, key.clone()));
        }
        if self.tentative.remove(key) {
            self.changed.insert(key.clone());
        }
        self.parked.remove(key);
    }

    /// Updates the sets and the schedule after a change of the address's entry.
    fn reschedule(&mut self, key: NetworkAddress) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let is_claimed = matches!(entry.phase, ClaimPhase::Claimed(..));
        let changed = if is_claimed {
            self.tentative.remove(&key)
        } else {
            self.tentative.insert(key.clone())
        };
        if changed {
            self.changed.insert(key.clone());
        }
        let next = entry.next_due();
        if let Some(due) = std::mem::replace(&mut entry.due, next) {
            self.schedule.remove(&(due, key.clone()));
        }
        self.parked.remove(&key);
        if let Some(due) = next {
            self.schedule.insert((due, key));
        }
    }

    /// Returns true if the address is not in use yet.
    #[must_use]
    pub fn is_tentative(&self, key: &NetworkAddress) -> bool {
        self.tentative.contains(key)
    }

    /// Returns the addresses that became tentative or ceased to be since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<NetworkAddress> {
        std::mem::take(&mut self.changed)
    }

    /// Announces the used addresses of a network again, after its interface came back.
    pub fn reannounce(&mut self, network: &Reference) {
        for key in keys_of_network(self.entries.range(lowest_key(network)..), network) {
            if let Some(entry) = self.entries.get_mut(&key)
                && matches!(entry.phase, ClaimPhase::Claimed(..))
            {
                entry.phase = ClaimPhase::Claimed(0, None);
            }
            self.reschedule(key);
        }
    }

    /// Reschedules the waiting addresses of a network that may have become reachable.
    pub fn retry_parked(&mut self, network: &Reference) {
        let parked = self
            .parked
            .range(lowest_key(network)..)
            .map(|key| (key, ()));
        for key in keys_of_network(parked, network) {
            self.reschedule(key);
        }
    }

    /// Records another host that uses the address.
    pub fn on_conflict(&mut self, key: &NetworkAddress, mac: Mac, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            let defended = entry.conflict.and_then(|rival| rival.defended);
            entry.conflict = Some(ConflictingHost {
                mac,
                last_seen: now,
                defended,
            });
            if matches!(entry.phase, ClaimPhase::Probing(..)) {
                entry.phase = ClaimPhase::Backoff(now + RETRY_AFTER_CONFLICT);
            }
            self.reschedule(key.clone());
        }
    }

    /// Takes the steps that are due in reachable networks, and returns the frames to send.
    pub fn step(
        &mut self,
        now: Instant,
        reachable: impl Fn(&Reference) -> bool,
    ) -> Vec<ConflictAction> {
        let mut actions = Vec::new();
        let due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        let mut due_keys = Vec::new();
        while self.schedule.first().is_some_and(|(at, _)| due(*at)) {
            due_keys.extend(self.schedule.pop_first().map(|(_, key)| key));
        }
        for key in due_keys {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.due = None;
            if !reachable(&key.0) {
                self.parked.insert(key);
                continue;
            }
            match entry.phase {
                ClaimPhase::Probing(sent, next) if due(next) => {
                    entry.phase = if sent < self.config.probes {
                        actions.push(ConflictAction::Probe(key.clone()));
                        ClaimPhase::Probing(sent + 1, Some(now + self.config.interval))
                    } else {
                        // No host answered the last probe within the interval.
                        entry.conflict = None;
                        actions.push(ConflictAction::Announce(key.clone()));
                        ClaimPhase::Claimed(1, Some(now + ANNOUNCE_INTERVAL))
                    };
                }
                ClaimPhase::Claimed(sent, next) if sent < ANNOUNCE_NUM && due(next) => {
                    actions.push(ConflictAction::Announce(key.clone()));
                    entry.phase = ClaimPhase::Claimed(sent + 1, Some(now + ANNOUNCE_INTERVAL));
                }
                ClaimPhase::Backoff(again) if again <= now => {
                    entry.phase = ClaimPhase::Probing(0, None)
                }
                _ => {}
            }
            let is_claimed = matches!(entry.phase, ClaimPhase::Claimed(..));
            if let Some(conflict) = &mut entry.conflict {
                if is_claimed && now.duration_since(conflict.last_seen) > CONFLICT_TTL {
                    entry.conflict = None;
                } else if is_claimed
                    && conflict
                        .defended
                        .is_none_or(|at| at + DEFEND_INTERVAL <= now && at < conflict.last_seen)
                {
                    conflict.defended = Some(now);
                    actions.push(ConflictAction::Announce(key.clone()));
                }
            }
            self.reschedule(key);
        }
        actions
    }

    /// Returns the status of an address, if it is known.
    #[must_use]
    pub fn status(&self, key: &NetworkAddress) -> Option<ClaimStatus> {
        let entry = self.entries.get(key)?;
        Some(match (entry.phase, entry.conflict) {
            (ClaimPhase::Probing(..), _) => ClaimStatus::Probing,
            (ClaimPhase::Claimed(..), None) => ClaimStatus::InUse,
            (ClaimPhase::Claimed(..), Some(conflict)) => ClaimStatus::Disputed(conflict.mac),
            (ClaimPhase::Backoff(_), Some(conflict)) => ClaimStatus::Conflict(conflict.mac),
            (ClaimPhase::Backoff(_), None) => ClaimStatus::Probing,
        })
    }
}

/// Returns the lowest key that an address of the network can have.
fn lowest_key(network: &Reference) -> NetworkAddress {
    (network.clone(), IpAddr::from([0, 0, 0, 0]))
}

/// Returns the leading keys that belong to the network.
fn keys_of_network<'a, T>(
    keys: impl Iterator<Item = (&'a NetworkAddress, T)>,
    network: &Reference,
) -> Vec<NetworkAddress> {
    keys.map(|(key, _)| key)
        .take_while(|key| key.0 == *network)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
