//! Address conflict detection (RFC 5227; RFC 4862, section 5.4): probes an address of an endpoint or of SNAT before it
//! is used, announces it, and defends it afterwards. Pure: the state machine takes observed conflicts, and returns the
//! frames to send.

mod claim;
mod claims_of_state;

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    hash::BuildHasher as _,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use gateway_common::{maps::MAX_NAT_ADDRESSES, packet::Mac};

use crate::{
    address_conflict::claim::{
        AddressClaim, CONFLICT_TTL, ClaimPhase, ConflictingHost, DEFEND_INTERVAL, Due,
        MAX_PROBE_CONFLICTS, RETRY_AFTER_CONFLICT, RETRY_AFTER_PROBE, announcement_count,
        announcement_interval,
    },
    config::ProbeConfig,
    model::Reference,
};

pub use claim::{ClaimKind, ConflictEvidence};
pub use claims_of_state::{Claims, claims_of_endpoint, claims_of_service, claims_of_state};

/// Address in a network.
pub type NetworkAddress = (Reference, IpAddr);

/// Number of addresses of a network that take a step at a time, so that thousands of them do not burst.
const MAX_STEPS_PER_NETWORK: u32 = 50;
/// Time until the next step while addresses are waiting for theirs: with `MAX_STEPS_PER_NETWORK`, a thousand addresses
/// a second.
pub const BACKLOG_INTERVAL: Duration = Duration::from_millis(50);

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
    /// The host with this MAC address has the address, so the gateway does not use it.
    Conflict(Mac),
    /// The address is in use, and the host with this MAC address claims it too.
    Disputed(Mac),
}

/// Conflict detection for the addresses of all endpoints and of SNAT.
#[derive(Debug)]
pub struct AddressConflictDetector {
    config: ProbeConfig,
    entries: BTreeMap<NetworkAddress, AddressClaim>,
    /// Number of entries that are SNAT addresses.
    snat_entries: u32,
    /// Addresses that are not in use yet.
    tentative: BTreeSet<NetworkAddress>,
    /// Addresses that another host claims.
    contested: BTreeSet<NetworkAddress>,
    /// Addresses that became tentative or ceased to be since the last [`Self::take_changed`].
    changed: BTreeSet<NetworkAddress>,
    /// Addresses with a next step, by its time.
    schedule: BTreeSet<(Due, NetworkAddress)>,
    /// Addresses whose next step waits until their network is reachable.
    parked: BTreeSet<NetworkAddress>,
    /// True if addresses were left out of the last step.
    has_backlog: bool,
    /// Hash that spreads the times at which addresses are probed again.
    jitter: RandomState,
}

impl AddressConflictDetector {
    /// Returns a detector without addresses.
    #[must_use]
    pub fn new(config: ProbeConfig) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            snat_entries: 0,
            tentative: BTreeSet::new(),
            contested: BTreeSet::new(),
            changed: BTreeSet::new(),
            schedule: BTreeSet::new(),
            parked: BTreeSet::new(),
            has_backlog: false,
            jitter: RandomState::new(),
        }
    }

    /// Adds addresses that were in use when the agent started. They are neither probed nor announced.
    pub fn adopt_in_use(&mut self, claims: Claims) {
        for (key, kind) in claims {
            let announced = ClaimPhase::Claimed(announcement_count(key.1), None);
            self.insert(key, AddressClaim::new(kind, announced));
        }
    }

    /// Adds these addresses, and removes all others.
    pub fn retain(&mut self, claims: Claims) {
        let removed: Vec<NetworkAddress> = self
            .entries
            .keys()
            .filter(|key| !claims.contains_key(key))
            .cloned()
            .collect();
        for key in removed {
            self.remove(&key);
        }
        for (key, kind) in claims {
            self.add(key, kind);
        }
    }

    /// Adds an address. If it is known already, only its kind changes: it may have gone from one object to another.
    pub fn add(&mut self, key: NetworkAddress, kind: ClaimKind) {
        if let Some(entry) = self.entries.get(&key) {
            let claim = AddressClaim { kind, ..*entry };
            self.insert(key, claim);
            return;
        }
        // The maps have no room for more, whose services have a capacity error.
        if kind == ClaimKind::Snat && self.snat_entries >= MAX_NAT_ADDRESSES {
            return;
        }
        let phase = if self.config.probes == 0 {
            ClaimPhase::Claimed(0, None)
        } else {
            ClaimPhase::Probing(0, None)
        };
        self.insert(key.clone(), AddressClaim::new(kind, phase));
        self.reschedule(key);
    }

    fn insert(&mut self, key: NetworkAddress, claim: AddressClaim) {
        let old = self.entries.insert(key, claim);
        let is_snat = |claim: AddressClaim| u32::from(claim.kind == ClaimKind::Snat);
        self.snat_entries += is_snat(claim);
        self.snat_entries -= old.map_or(0, is_snat);
    }

    /// Removes an address.
    pub fn remove(&mut self, key: &NetworkAddress) {
        if let Some(entry) = self.entries.remove(key) {
            self.snat_entries -= u32::from(entry.kind == ClaimKind::Snat);
            if let Some(due) = entry.due {
                self.schedule.remove(&(due, key.clone()));
            }
        }
        if self.tentative.remove(key) {
            self.changed.insert(key.clone());
        }
        self.contested.remove(key);
        self.parked.remove(key);
    }

    /// Updates the sets and the schedule after a change of the address's entry.
    fn reschedule(&mut self, key: NetworkAddress) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let changed = if entry.is_claimed() {
            self.tentative.remove(&key)
        } else {
            self.tentative.insert(key.clone())
        };
        if changed {
            self.changed.insert(key.clone());
        }
        if entry.conflict.is_some() {
            self.contested.insert(key.clone());
        } else {
            self.contested.remove(&key);
        }
        let next = entry.next_due(key.1);
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

    /// Returns true if the address is in use.
    #[must_use]
    pub fn is_claimed(&self, key: &NetworkAddress) -> bool {
        self.entries.get(key).is_some_and(AddressClaim::is_claimed)
    }

    /// Returns the addresses that became tentative or ceased to be since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<NetworkAddress> {
        std::mem::take(&mut self.changed)
    }

    /// Announces the used addresses of a network again, after neighbours may have lost them: its interface came back,
    /// has another MAC address, or is the one that is left.
    pub fn reannounce(&mut self, network: &Reference) {
        for key in keys_of_network(self.entries.range(lowest_key(network)..), network) {
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.is_claimed()
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

    /// Records another host that uses the address, or probes for it.
    ///
    /// A probe interrupts the probing a few times only: two hosts that probe at once must not both take the address
    /// (RFC 5227, section 2.1.1; RFC 4862, section 5.4.3), but a host that never uses it must not keep it from us.
    pub fn on_conflict(
        &mut self,
        key: &NetworkAddress,
        mac: Mac,
        evidence: ConflictEvidence,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let is_probing = matches!(entry.phase, ClaimPhase::Probing(..));
        match evidence {
            ConflictEvidence::Probe => {
                if !is_probing || entry.probe_conflicts >= MAX_PROBE_CONFLICTS {
                    return;
                }
                entry.probe_conflicts += 1;
                let hash = self.jitter.hash_one((key, entry.probe_conflicts));
                let random = RETRY_AFTER_PROBE.mul_f64(
                    f64::from(u16::try_from(hash & 0xffff).unwrap_or(0)) / f64::from(u16::MAX),
                );
                entry.phase = ClaimPhase::Backoff(now + RETRY_AFTER_PROBE + random);
            }
            ConflictEvidence::Use => {
                let defended = entry.conflict.and_then(|rival| rival.defended);
                entry.conflict = Some(ConflictingHost {
                    mac,
                    last_seen: now,
                    defended,
                });
                if is_probing {
                    entry.phase = ClaimPhase::Backoff(now + RETRY_AFTER_CONFLICT);
                }
            }
        }
        self.reschedule(key.clone());
    }

    /// Takes the steps that are due in reachable networks, and returns the frames to send. Only so many addresses of a
    /// network take one that frames do not burst; [`Self::has_backlog`] tells that others wait.
    pub fn step(
        &mut self,
        now: Instant,
        reachable: impl Fn(&Reference) -> bool,
    ) -> Vec<ConflictAction> {
        let mut actions = Vec::new();
        for key in self.take_due(now) {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.due = None;
            if !reachable(&key.0) {
                self.parked.insert(key);
                continue;
            }
            take_step(self.config, entry, &key, now, &mut actions);
            self.reschedule(key);
        }
        actions
    }

    /// Removes the addresses from the schedule that take a step now.
    fn take_due(&mut self, now: Instant) -> Vec<NetworkAddress> {
        let scheduled = || {
            let due = self.schedule.iter();
            due.take_while(|(at, _)| at.is_none_or(|at| at <= now))
        };
        // Addresses that have begun come first, so that some are in use before the others have begun.
        let begun = scheduled().filter(|(at, _)| at.is_some());
        let not_begun = scheduled().filter(|(at, _)| at.is_none());
        let mut taken = BTreeMap::<&Reference, u32>::new();
        let mut chosen = Vec::new();
        let mut has_backlog = false;
        for (at, key) in begun.chain(not_begun) {
            let count = taken.entry(&key.0).or_default();
            if *count < MAX_STEPS_PER_NETWORK {
                *count += 1;
                chosen.push((*at, key.clone()));
            } else {
                has_backlog = true;
            }
        }
        self.has_backlog = has_backlog;
        for entry in &chosen {
            self.schedule.remove(entry);
        }
        chosen.into_iter().map(|(_, key)| key).collect()
    }

    /// Returns true if addresses were left out of the last step, which are to take theirs after [`BACKLOG_INTERVAL`].
    #[must_use]
    pub const fn has_backlog(&self) -> bool {
        self.has_backlog
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

    /// Returns the addresses from `first` to `last` of a network that are not in use or are disputed, with their status.
    pub fn unsettled(
        &self,
        network: &Reference,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, ClaimStatus)> {
        let range: RangeInclusive<NetworkAddress> =
            (network.clone(), first)..=(network.clone(), last);
        let disputed = self.contested.range(range.clone());
        let disputed = disputed.filter(|key| !self.tentative.contains(key));
        self.tentative
            .range(range)
            .chain(disputed)
            .filter_map(|key| Some((key.1, self.status(key)?)))
    }
}

/// Takes the step of one address.
fn take_step(
    config: ProbeConfig,
    entry: &mut AddressClaim,
    key: &NetworkAddress,
    now: Instant,
    actions: &mut Vec<ConflictAction>,
) {
    let due = |at: Due| at.is_none_or(|at| at <= now);
    let next_announcement = Some(now + announcement_interval(key.1));
    match entry.phase {
        ClaimPhase::Probing(sent, next) if due(next) => {
            entry.phase = if sent < config.probes {
                actions.push(ConflictAction::Probe(key.clone()));
                ClaimPhase::Probing(sent + 1, Some(now + config.interval))
            } else {
                // No host answered the last probe within the interval.
                entry.conflict = None;
                entry.probe_conflicts = 0;
                actions.push(ConflictAction::Announce(key.clone()));
                ClaimPhase::Claimed(1, next_announcement)
            };
        }
        ClaimPhase::Claimed(sent, next) if sent < announcement_count(key.1) && due(next) => {
            actions.push(ConflictAction::Announce(key.clone()));
            entry.phase = ClaimPhase::Claimed(sent + 1, next_announcement);
        }
        ClaimPhase::Backoff(again) if again <= now => {
            entry.phase = ClaimPhase::Probing(0, None);
        }
        _ => {}
    }
    let is_claimed = entry.is_claimed();
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
