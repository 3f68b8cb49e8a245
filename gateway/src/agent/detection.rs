//! Whether an endpoint's address is free before it is taken, and whether it stays undisputed (RFC
//! 5227; RFC 4862, section 5.4). Pure: what to send, and what is known, from what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use gateway_common::packet::Mac;

use crate::model::{Reference, State};

/// An address in a network.
pub type Key = (Reference, IpAddr);

/// After a conflict the address is tried again so long afterwards (RFC 5227, section 2.1.1, allows a
/// try a minute when there were ten).
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// An address is defended at most so often (RFC 5227, section 2.4: DEFEND_INTERVAL).
const DEFEND: Duration = Duration::from_secs(10);
/// A conflict is shown for so long after it was last seen.
const REMEMBER: Duration = Duration::from_secs(60);
/// How often an address is announced once it is taken (RFC 5227: ANNOUNCE_NUM).
const ANNOUNCEMENTS: u32 = 2;
/// Time between two announcements (RFC 5227: ANNOUNCE_INTERVAL).
const ANNOUNCE: Duration = Duration::from_secs(2);

/// How thoroughly addresses are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// How many probes; 0: addresses are taken without asking.
    pub probes: u32,
    /// The time between two, and after the last.
    pub interval: Duration,
}

/// How far an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many probes have been sent; the next step is due then.
    Probing(u32, Option<Instant>),
    /// It is ours; so many announcements have been sent.
    Taken(u32, Option<Instant>),
    /// Somebody else has it; it is tried again then.
    Refused(Instant),
}

/// A station that uses an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rival {
    station: Mac,
    seen: Instant,
    defended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    phase: Phase,
    rival: Option<Rival>,
    /// Where it stands in the order, if it does.
    due: Option<Due>,
}

/// When there is something to do: at once, or then.
type Due = Option<Instant>;

impl Entry {
    const fn new(phase: Phase) -> Self {
        Self {
            phase,
            rival: None,
            due: None,
        }
    }

    /// When there is something to do about it, if ever.
    fn next(&self) -> Option<Due> {
        let of_phase = match self.phase {
            Phase::Probing(_, next) => Some(next),
            Phase::Taken(sent, next) => (sent < ANNOUNCEMENTS).then_some(next),
            Phase::Refused(again) => Some(Some(again)),
        };
        let taken = matches!(self.phase, Phase::Taken(..));
        let of_rival = self.rival.filter(|_| taken).map(|rival| {
            let forgotten = rival.seen + REMEMBER;
            match rival.defended {
                None => None,
                Some(at) if at < rival.seen => Some(forgotten.min(at + DEFEND)),
                Some(_) => Some(forgotten),
            }
        });
        match (of_phase, of_rival) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask who has the address.
    Probe(Key),
    /// Say that it is here.
    Announce(Key),
}

/// How an address stands, for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being found out whether somebody else has it.
    Probing,
    /// It is in use.
    Taken,
    /// Another station has it, so it is not in use.
    Conflict(Mac),
    /// It is in use, and another station claims it too.
    Disputed(Mac),
}

/// All endpoints' addresses.
#[derive(Debug)]
pub struct Detection {
    probing: Probing,
    entries: BTreeMap<Key, Entry>,
    /// Those that are not in use yet.
    tentative: BTreeSet<Key>,
    /// Those of which that changed since it was last taken in.
    turned: BTreeSet<Key>,
    /// Those that there is something to do about, by when.
    order: BTreeSet<(Due, Key)>,
    /// Those that there will be, when their networks can be reached.
    parked: BTreeSet<Key>,
}

impl Detection {
    /// Knows no addresses yet.
    #[must_use]
    pub const fn new(probing: Probing) -> Self {
        Self {
            probing,
            entries: BTreeMap::new(),
            tentative: BTreeSet::new(),
            turned: BTreeSet::new(),
            order: BTreeSet::new(),
            parked: BTreeSet::new(),
        }
    }

    /// These were in use when the agent started.
    pub fn adopt(&mut self, keys: impl IntoIterator<Item = Key>) {
        let entry = Entry::new(Phase::Taken(ANNOUNCEMENTS, None));
        self.entries
            .extend(keys.into_iter().map(|key| (key, entry)));
    }

    /// Takes in which addresses there are.
    pub fn follow(&mut self, state: &State) {
        let mut wanted = BTreeSet::new();
        for (reference, record) in &state.endpoints {
            let endpoint = &record.object;
            let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
            wanted.extend(endpoint.addresses.iter().map(|a| (network.clone(), *a)));
        }
        let gone: Vec<Key> = self
            .entries
            .keys()
            .filter(|key| !wanted.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.forget(&key);
        }
        for key in wanted {
            self.add(key);
        }
    }

    /// Takes in that there is an address.
    pub fn add(&mut self, key: Key) {
        if self.entries.contains_key(&key) {
            return;
        }
        let phase = if self.probing.probes == 0 {
            Phase::Taken(0, None)
        } else {
            Phase::Probing(0, None)
        };
        self.entries.insert(key.clone(), Entry::new(phase));
        self.note(key);
    }

    /// Takes in that there is one no more.
    pub fn forget(&mut self, key: &Key) {
        if let Some(due) = self.entries.remove(key).and_then(|entry| entry.due) {
            self.order.remove(&(due, key.clone()));
        }
        if self.tentative.remove(key) {
            self.turned.insert(key.clone());
        }
        self.parked.remove(key);
    }

    /// Keeps in mind what is to be known of the address, and when there is something to do about it.
    fn note(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let taken = matches!(entry.phase, Phase::Taken(..));
        let turned = if taken {
            self.tentative.remove(&key)
        } else {
            self.tentative.insert(key.clone())
        };
        if turned {
            self.turned.insert(key.clone());
        }
        let next = entry.next();
        if let Some(due) = std::mem::replace(&mut entry.due, next) {
            self.order.remove(&(due, key.clone()));
        }
        self.parked.remove(&key);
        if let Some(due) = next {
            self.order.insert((due, key));
        }
    }

    /// Whether the address is not in use yet.
    #[must_use]
    pub fn is_tentative(&self, key: &Key) -> bool {
        self.tentative.contains(key)
    }

    /// The addresses of which that changed since the last call.
    pub fn take_turned(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.turned)
    }

    /// The addresses of a network are announced anew: its interface came back.
    pub fn announce_again(&mut self, network: &Reference) {
        for key in of_network(self.entries.range(first(network)..), network) {
            if let Some(entry) = self.entries.get_mut(&key)
                && matches!(entry.phase, Phase::Taken(..))
            {
                entry.phase = Phase::Taken(0, None);
            }
            self.note(key);
        }
    }

    /// A network that could not be reached can perhaps be reached now.
    pub fn unpark(&mut self, network: &Reference) {
        let parked = self.parked.range(first(network)..).map(|key| (key, ()));
        for key in of_network(parked, network) {
            self.note(key);
        }
    }

    /// A station was seen that uses the address.
    pub fn rival(&mut self, key: &Key, station: Mac, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            let defended = entry.rival.and_then(|rival| rival.defended);
            entry.rival = Some(Rival {
                station,
                seen: now,
                defended,
            });
            if matches!(entry.phase, Phase::Probing(..)) {
                entry.phase = Phase::Refused(now + TRY_AGAIN);
            }
            self.note(key.clone());
        }
    }

    /// What is due now, in networks that can be reached.
    pub fn step(&mut self, now: Instant, reachable: impl Fn(&Reference) -> bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        let mut turn = Vec::new();
        while self.order.first().is_some_and(|(at, _)| due(*at)) {
            turn.extend(self.order.pop_first().map(|(_, key)| key));
        }
        for key in turn {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.due = None;
            if !reachable(&key.0) {
                self.parked.insert(key);
                continue;
            }
            match entry.phase {
                Phase::Probing(sent, next) if due(next) => {
                    entry.phase = if sent < self.probing.probes {
                        actions.push(Action::Probe(key.clone()));
                        Phase::Probing(sent + 1, Some(now + self.probing.interval))
                    } else {
                        // Nobody answered the last one within the interval.
                        entry.rival = None;
                        actions.push(Action::Announce(key.clone()));
                        Phase::Taken(1, Some(now + ANNOUNCE))
                    };
                }
                Phase::Taken(sent, next) if sent < ANNOUNCEMENTS && due(next) => {
                    actions.push(Action::Announce(key.clone()));
                    entry.phase = Phase::Taken(sent + 1, Some(now + ANNOUNCE));
                }
                Phase::Refused(again) if again <= now => entry.phase = Phase::Probing(0, None),
                _ => {}
            }
            let taken = matches!(entry.phase, Phase::Taken(..));
            if let Some(rival) = &mut entry.rival {
                if taken && now.duration_since(rival.seen) > REMEMBER {
                    entry.rival = None;
                } else if taken
                    && rival
                        .defended
                        .is_none_or(|at| at + DEFEND <= now && at < rival.seen)
                {
                    rival.defended = Some(now);
                    actions.push(Action::Announce(key.clone()));
                }
            }
            self.note(key);
        }
        actions
    }

    /// How an address stands.
    #[must_use]
    pub fn standing(&self, key: &Key) -> Option<Standing> {
        let entry = self.entries.get(key)?;
        Some(match (entry.phase, entry.rival) {
            (Phase::Probing(..), _) => Standing::Probing,
            (Phase::Taken(..), None) => Standing::Taken,
            (Phase::Taken(..), Some(rival)) => Standing::Disputed(rival.station),
            (Phase::Refused(_), Some(rival)) => Standing::Conflict(rival.station),
            (Phase::Refused(_), None) => Standing::Probing,
        })
    }
}

/// The first that an address of the network may be.
fn first(network: &Reference) -> Key {
    (network.clone(), IpAddr::from([0, 0, 0, 0]))
}

/// Those at the beginning that are of the network.
fn of_network<'a, T>(keys: impl Iterator<Item = (&'a Key, T)>, network: &Reference) -> Vec<Key> {
    keys.map(|(key, _)| key)
        .take_while(|key| key.0 == *network)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIVAL: Mac = Mac::new([2, 0, 0, 0, 0, 9]);

    fn key() -> Key {
        ("a/net".parse().unwrap(), "10.0.0.100".parse().unwrap())
    }

    /// An address that came up a moment ago.
    fn fresh(probes: u32) -> Detection {
        let probing = Probing {
            probes,
            interval: Duration::from_millis(200),
        };
        let mut detection = Detection::new(probing);
        detection.add(key());
        detection
    }

    #[test]
    fn an_address_is_taken_after_the_last_probe_went_unanswered() {
        let mut detection = fresh(3);
        let start = Instant::now();
        let mut sent = Vec::new();
        for step in 0..4 {
            assert_eq!(detection.standing(&key()), Some(Standing::Probing));
            assert!(detection.is_tentative(&key()));
            let now = start + Duration::from_millis(200) * step;
            assert_eq!(detection.step(now, |_| false), []);
            assert_eq!(detection.step(now, |_| true), [], "it is parked");
            detection.unpark(&key().0);
            sent.extend(detection.step(now, |_| true));
            assert_eq!(detection.step(now, |_| true), []);
        }
        let probe = Action::Probe(key());
        let announce = Action::Announce(key());
        assert_eq!(
            sent,
            [probe.clone(), probe.clone(), probe, announce.clone()]
        );
        assert_eq!(detection.standing(&key()), Some(Standing::Taken));
        assert!(!detection.is_tentative(&key()));
        assert_eq!(detection.take_turned(), BTreeSet::from([key()]));
        assert_eq!(detection.take_turned(), BTreeSet::new());
        let later = start + Duration::from_secs(3);
        assert_eq!(detection.step(later, |_| true), [announce]);
        assert_eq!(detection.step(later + ANNOUNCE, |_| true), []);
    }

    #[test]
    fn one_that_is_answered_is_not_taken_and_tried_again() {
        let mut detection = fresh(3);
        let start = Instant::now();
        detection.step(start, |_| true);
        detection.rival(&key(), RIVAL, start);
        assert_eq!(detection.standing(&key()), Some(Standing::Conflict(RIVAL)));
        let soon = start + Duration::from_secs(10);
        assert_eq!(detection.step(soon, |_| true), []);
        let again = start + TRY_AGAIN;
        detection.step(again, |_| true);
        assert_eq!(detection.step(again, |_| true), [Action::Probe(key())]);
    }

    #[test]
    fn one_in_use_is_defended_and_not_too_often() {
        let mut detection = fresh(0);
        detection.adopt([key()]);
        let start = Instant::now();
        assert_eq!(detection.step(start, |_| true), []);
        detection.rival(&key(), RIVAL, start);
        assert_eq!(detection.standing(&key()), Some(Standing::Disputed(RIVAL)));
        let announce = [Action::Announce(key())];
        assert_eq!(detection.step(start, |_| true), announce);
        detection.rival(&key(), RIVAL, start + Duration::from_secs(5));
        let soon = start + Duration::from_secs(5);
        assert_eq!(detection.step(soon, |_| true), []);
        assert_eq!(detection.step(start + DEFEND, |_| true), announce);
        assert!(!detection.is_tentative(&key()), "it stays in use");
        let later = soon + REMEMBER + Duration::from_secs(1);
        detection.step(later, |_| true);
        assert_eq!(detection.standing(&key()), Some(Standing::Taken));
        assert!(detection.order.is_empty() && detection.parked.is_empty());
    }

    #[test]
    fn a_network_that_comes_back_has_its_addresses_announced_and_no_other() {
        let mut detection = fresh(0);
        let other: Key = ("b/net".parse().unwrap(), key().1);
        detection.adopt([key(), other.clone()]);
        let start = Instant::now();
        assert_eq!(detection.step(start, |_| true), []);
        detection.announce_again(&key().0);
        assert_eq!(detection.step(start, |_| true), [Action::Announce(key())]);
        detection.forget(&key());
        assert_eq!(detection.step(start + ANNOUNCE, |_| true), []);
        assert_eq!(detection.standing(&other), Some(Standing::Taken));
    }
}
