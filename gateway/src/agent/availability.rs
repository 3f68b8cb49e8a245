//! Availability of backends and resources: which of its changes are reported as events. Pure.
//!
//! A subject is a backend, or a resource as a whole. A subject that is not recorded is available.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::model::{Name, Reference, event::AvailabilityChange};

/// Time for which a backend must be unreachable until that is reported. A neighbour that is being resolved is not
/// reachable yet.
const HOLD_DOWN: Duration = Duration::from_secs(2);

/// Interval of reports about one subject that changes all the time.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Time that a subject may be ahead of its interval: four changes are reported at once.
const BURST_TOLERANCE: Duration = Duration::from_secs(3 * 60);

/// Resource of a service, and the address of a backend; without an address, the resource as a whole.
pub(in crate::agent) type Subject = (Name, Option<IpAddr>);

/// Observed availability of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Observation {
    pub(in crate::agent) available: bool,
    /// True if health checks have established it, and false if it may change at any moment.
    pub(in crate::agent) definite: bool,
    /// Reason, for users.
    pub(in crate::agent) reason: String,
}

/// Subject that is not available, or whose availability changed recently.
#[derive(Clone, Debug)]
struct Tracked {
    observed: Observation,
    /// Time since which `observed.available` has its value.
    since: Instant,
    /// Availability as reported last.
    reported: bool,
    /// Time from which reports are within their interval (theoretical arrival time of the GCRA).
    next_report: Instant,
}

impl Tracked {
    /// Returns true if the change is to be reported now.
    fn is_due(&self, now: Instant) -> bool {
        let held_down = !self.observed.available
            && !self.observed.definite
            && now.saturating_duration_since(self.since) < HOLD_DOWN;
        self.observed.available != self.reported
            && !held_down
            && self.next_report.saturating_duration_since(now) <= BURST_TOLERANCE
    }

    /// Returns true if the subject is as one that is not recorded.
    fn is_forgettable(&self, now: Instant) -> bool {
        self.observed.available && self.reported && self.next_report <= now
    }
}

/// Availability of all subjects, and the rate of reports about each.
#[derive(Debug, Default)]
pub(in crate::agent) struct AvailabilityTracker {
    services: BTreeMap<Reference, BTreeMap<Subject, Tracked>>,
}

impl AvailabilityTracker {
    /// Records the availability of all subjects of a service. Others of the service are forgotten without a report.
    pub(in crate::agent) fn observe_service(
        &mut self,
        service: &Reference,
        observations: BTreeMap<Subject, Observation>,
        now: Instant,
    ) {
        let mut before = self.services.remove(service).unwrap_or_default();
        let mut after = BTreeMap::new();
        for (subject, observed) in observations {
            let tracked = match before.remove(&subject) {
                Some(old) => {
                    let changed = old.observed.available != observed.available;
                    Tracked {
                        observed,
                        since: if changed { now } else { old.since },
                        ..old
                    }
                }
                None => Tracked {
                    observed,
                    since: now,
                    reported: true,
                    next_report: now,
                },
            };
            if !tracked.is_forgettable(now) {
                after.insert(subject, tracked);
            }
        }
        if !after.is_empty() {
            self.services.insert(service.clone(), after);
        }
    }

    /// Forgets services that do not exist any more.
    pub(in crate::agent) fn retain(&mut self, exists: impl Fn(&Reference) -> bool) {
        self.services.retain(|service, _| exists(service));
    }

    /// Returns the changes that are to be reported now, and counts them as reported.
    pub(in crate::agent) fn take_changes(&mut self, now: Instant) -> Vec<AvailabilityChange> {
        let mut changes = Vec::new();
        let mut quiet = BTreeSet::new();
        for (service, subjects) in &mut self.services {
            for ((resource, backend), tracked) in subjects.iter_mut() {
                if !tracked.is_due(now) {
                    continue;
                }
                tracked.reported = tracked.observed.available;
                tracked.next_report = tracked.next_report.max(now) + REPORT_INTERVAL;
                changes.push(AvailabilityChange {
                    service: service.clone(),
                    resource: resource.clone(),
                    backend: *backend,
                    available: tracked.observed.available,
                    reason: tracked.observed.reason.clone(),
                });
            }
            subjects.retain(|_, tracked| !tracked.is_forgettable(now));
            if subjects.is_empty() {
                quiet.insert(service.clone());
            }
        }
        self.services.retain(|service, _| !quiet.contains(service));
        changes
    }
}

impl AvailabilityTracker {
    /// Makes changes due again that could not be stored. They are reported within the rate of reports.
    pub(in crate::agent) fn put_back(&mut self, changes: &[AvailabilityChange]) {
        for change in changes {
            let subject = (change.resource.clone(), change.backend);
            let subjects = self.services.get_mut(&change.service);
            if let Some(tracked) = subjects.and_then(|subjects| subjects.get_mut(&subject)) {
                tracked.reported = !change.available;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: [bool; 0] = [];

    fn service() -> Reference {
        "p/shop".parse().unwrap()
    }

    fn backend() -> Subject {
        let address = IpAddr::from([10, 1, 0, 10]);
        ("default".parse().unwrap(), Some(address))
    }

    fn observation(available: bool, definite: bool) -> Observation {
        Observation {
            available,
            definite,
            reason: "because".to_owned(),
        }
    }

    /// Records the availability of the backend, and returns what is reported.
    fn report(tracker: &mut AvailabilityTracker, observed: Observation, now: Instant) -> Vec<bool> {
        tracker.observe_service(&service(), [(backend(), observed)].into(), now);
        reported(tracker, now)
    }

    fn reported(tracker: &mut AvailabilityTracker, now: Instant) -> Vec<bool> {
        let changes = tracker.take_changes(now).into_iter();
        changes.map(|change| change.available).collect()
    }

    #[test]
    fn failed_checks_are_reported_at_once_and_once() {
        let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
        assert_eq!(report(&mut tracker, observation(true, true), start), NONE);
        assert!(tracker.services.is_empty());
        assert_eq!(
            report(&mut tracker, observation(false, true), start),
            [false]
        );
        assert_eq!(report(&mut tracker, observation(false, true), start), NONE);
        assert_eq!(report(&mut tracker, observation(true, true), start), [true]);
    }

    #[test]
    fn an_unreachable_backend_is_reported_when_it_stays_so() {
        let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
        assert_eq!(report(&mut tracker, observation(false, false), start), NONE);
        let soon = start + HOLD_DOWN / 2;
        assert_eq!(report(&mut tracker, observation(false, false), soon), NONE);
        assert_eq!(reported(&mut tracker, start + HOLD_DOWN), [false]);
        let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
        assert_eq!(report(&mut tracker, observation(false, false), start), NONE);
        assert_eq!(report(&mut tracker, observation(true, true), soon), NONE);
        assert_eq!(reported(&mut tracker, start + HOLD_DOWN * 2), NONE);
    }

    #[test]
    fn a_change_that_was_not_stored_is_reported_again() {
        let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
        let down = [(backend(), observation(false, true))].into();
        tracker.observe_service(&service(), down, start);
        let changes = tracker.take_changes(start);
        assert_eq!(changes.len(), 1);
        tracker.put_back(&changes);
        assert_eq!(reported(&mut tracker, start), [false]);
        assert_eq!(reported(&mut tracker, start), NONE);
    }

    #[test]
    fn a_removed_subject_is_forgotten() {
        let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
        report(&mut tracker, observation(false, true), start);
        tracker.observe_service(&service(), BTreeMap::new(), start);
        assert_eq!(reported(&mut tracker, start), NONE);
        assert!(tracker.services.is_empty());
        report(&mut tracker, observation(false, true), start);
        tracker.retain(|_| false);
        assert!(tracker.services.is_empty());
    }

    proptest! {
        #[test]
        fn flapping_is_bounded_and_the_last_state_is_reported(
            states in proptest::collection::vec(any::<bool>(), 0..400),
        ) {
            let (mut tracker, start) = (AvailabilityTracker::default(), Instant::now());
            let mut last = true;
            let mut count = 0;
            let mut now = start;
            for state in &states {
                for reported in report(&mut tracker, observation(*state, true), now) {
                    prop_assert_ne!(reported, last);
                    last = reported;
                    count += 1;
                }
                now += Duration::from_secs(1);
            }
            prop_assert!(count <= 4 + states.len() / 60 + 1, "{} reports", count);
            now += REPORT_INTERVAL * 5;
            for reported in reported(&mut tracker, now) {
                last = reported;
            }
            prop_assert_eq!(last, states.last().copied().unwrap_or(true));
        }
    }
}
