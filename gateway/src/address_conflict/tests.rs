//! Tests of the state machine.

use super::*;

const OTHER_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 9]);

fn key() -> NetworkAddress {
    ("a/net".parse().unwrap(), "10.0.0.100".parse().unwrap())
}

/// Returns a detector with one address that was just added.
fn fresh(probes: u32) -> AddressConflictDetector {
    let config = ProbeConfig {
        probes,
        interval: Duration::from_millis(200),
    };
    let mut detector = AddressConflictDetector::new(config);
    detector.add(key());
    detector
}

#[test]
fn address_is_claimed_after_the_last_unanswered_probe() {
    let mut detector = fresh(3);
    let start = Instant::now();
    let mut sent = Vec::new();
    for step in 0..4 {
        assert_eq!(detector.status(&key()), Some(ClaimStatus::Probing));
        assert!(detector.is_tentative(&key()));
        let now = start + Duration::from_millis(200) * step;
        assert_eq!(detector.step(now, |_| false), []);
        assert_eq!(detector.step(now, |_| true), [], "it is parked");
        detector.retry_parked(&key().0);
        sent.extend(detector.step(now, |_| true));
        assert_eq!(detector.step(now, |_| true), []);
    }
    let probe = ConflictAction::Probe(key());
    let announce = ConflictAction::Announce(key());
    assert_eq!(
        sent,
        [probe.clone(), probe.clone(), probe, announce.clone()]
    );
    assert_eq!(detector.status(&key()), Some(ClaimStatus::InUse));
    assert!(!detector.is_tentative(&key()));
    assert_eq!(detector.take_changed(), BTreeSet::from([key()]));
    assert_eq!(detector.take_changed(), BTreeSet::new());
    let later = start + Duration::from_secs(3);
    assert_eq!(detector.step(later, |_| true), [announce]);
    assert_eq!(detector.step(later + ANNOUNCE_INTERVAL, |_| true), []);
}

#[test]
fn answered_probe_backs_off_and_retries() {
    let mut detector = fresh(3);
    let start = Instant::now();
    detector.step(start, |_| true);
    detector.on_conflict(&key(), OTHER_MAC, start);
    assert_eq!(
        detector.status(&key()),
        Some(ClaimStatus::Conflict(OTHER_MAC))
    );
    let soon = start + Duration::from_secs(10);
    assert_eq!(detector.step(soon, |_| true), []);
    let again = start + RETRY_AFTER_CONFLICT;
    detector.step(again, |_| true);
    assert_eq!(
        detector.step(again, |_| true),
        [ConflictAction::Probe(key())]
    );
}

#[test]
fn address_in_use_is_defended_once_an_interval() {
    let mut detector = fresh(0);
    detector.adopt_in_use([key()]);
    let start = Instant::now();
    assert_eq!(detector.step(start, |_| true), []);
    detector.on_conflict(&key(), OTHER_MAC, start);
    assert_eq!(
        detector.status(&key()),
        Some(ClaimStatus::Disputed(OTHER_MAC))
    );
    let announce = [ConflictAction::Announce(key())];
    assert_eq!(detector.step(start, |_| true), announce);
    detector.on_conflict(&key(), OTHER_MAC, start + Duration::from_secs(5));
    let soon = start + Duration::from_secs(5);
    assert_eq!(detector.step(soon, |_| true), []);
    assert_eq!(detector.step(start + DEFEND_INTERVAL, |_| true), announce);
    assert!(!detector.is_tentative(&key()), "it stays in use");
    let later = soon + CONFLICT_TTL + Duration::from_secs(1);
    detector.step(later, |_| true);
    assert_eq!(detector.status(&key()), Some(ClaimStatus::InUse));
    assert!(detector.schedule.is_empty() && detector.parked.is_empty());
}

#[test]
fn recovered_network_reannounces_only_its_own_addresses() {
    let mut detector = fresh(0);
    let other: NetworkAddress = ("b/net".parse().unwrap(), key().1);
    detector.adopt_in_use([key(), other.clone()]);
    let start = Instant::now();
    assert_eq!(detector.step(start, |_| true), []);
    detector.reannounce(&key().0);
    assert_eq!(
        detector.step(start, |_| true),
        [ConflictAction::Announce(key())]
    );
    detector.remove(&key());
    assert_eq!(detector.step(start + ANNOUNCE_INTERVAL, |_| true), []);
    assert_eq!(detector.status(&other), Some(ClaimStatus::InUse));
}
