//! Tests of the state machine.

use super::*;

const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const USE: ConflictEvidence = ConflictEvidence::Use;
const PROBE: ConflictEvidence = ConflictEvidence::Probe;

const OTHER_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 9]);

fn key() -> NetworkAddress {
    ("a/net".parse().unwrap(), "10.0.0.100".parse().unwrap())
}

fn endpoints<const N: usize>(keys: [NetworkAddress; N]) -> Claims {
    keys.map(|key| (key, ClaimKind::Endpoint)).into()
}

/// Returns a detector with one address that was just added.
fn fresh(probes: u32) -> AddressConflictDetector {
    let config = ProbeConfig {
        probes,
        interval: Duration::from_millis(200),
    };
    let mut detector = AddressConflictDetector::new(config);
    detector.add(key(), ClaimKind::Endpoint);
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
    detector.on_conflict(&key(), OTHER_MAC, USE, start);
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
    detector.adopt_in_use(endpoints([key()]));
    let start = Instant::now();
    assert_eq!(detector.step(start, |_| true), []);
    detector.on_conflict(&key(), OTHER_MAC, USE, start);
    assert_eq!(
        detector.status(&key()),
        Some(ClaimStatus::Disputed(OTHER_MAC))
    );
    let announce = [ConflictAction::Announce(key())];
    assert_eq!(detector.step(start, |_| true), announce);
    detector.on_conflict(&key(), OTHER_MAC, USE, start + Duration::from_secs(5));
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
    detector.adopt_in_use(endpoints([key(), other.clone()]));
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

#[test]
fn probes_of_another_host_interrupt_only_a_few_times() {
    let mut detector = fresh(3);
    let mut now = Instant::now();
    let mut interruptions = 0;
    // A switch probes for the address after each of the gateway's probes.
    while detector.is_tentative(&key()) {
        let probed = detector
            .step(now, |_| true)
            .contains(&ConflictAction::Probe(key()));
        if probed {
            detector.on_conflict(&key(), OTHER_MAC, PROBE, now);
        }
        assert_ne!(
            detector.status(&key()),
            Some(ClaimStatus::Conflict(OTHER_MAC)),
            "a host that probes does not have the address"
        );
        let interrupted = matches!(detector.entries[&key()].phase, ClaimPhase::Backoff(_));
        interruptions += u32::from(probed && interrupted);
        assert!(interruptions <= MAX_PROBE_CONFLICTS);
        now += Duration::from_millis(50);
    }
    assert_eq!(interruptions, MAX_PROBE_CONFLICTS);
    assert_eq!(detector.status(&key()), Some(ClaimStatus::InUse));
    // The address is in use, so a probe is answered, and no conflict.
    detector.on_conflict(&key(), OTHER_MAC, PROBE, now);
    assert_eq!(detector.status(&key()), Some(ClaimStatus::InUse));
}

#[test]
fn use_by_another_host_is_a_conflict_after_its_probes_too() {
    let mut detector = fresh(3);
    let start = Instant::now();
    detector.step(start, |_| true);
    detector.on_conflict(&key(), OTHER_MAC, PROBE, start);
    assert_eq!(detector.status(&key()), Some(ClaimStatus::Probing));
    detector.step(start + 2 * RETRY_AFTER_PROBE, |_| true);
    detector.on_conflict(&key(), OTHER_MAC, USE, start + 2 * RETRY_AFTER_PROBE);
    assert_eq!(
        detector.status(&key()),
        Some(ClaimStatus::Conflict(OTHER_MAC))
    );
}

#[test]
fn ipv6_addresses_are_announced_three_times_in_two_seconds() {
    let mut detector = AddressConflictDetector::new(ProbeConfig {
        probes: 0,
        interval: Duration::from_millis(200),
    });
    let key: NetworkAddress = (key().0, "fd00::100".parse().unwrap());
    detector.add(key.clone(), ClaimKind::Snat);
    let start = Instant::now();
    let times: Vec<u32> = (0..50)
        .filter(|tenth| {
            let now = start + Duration::from_millis(100) * *tenth;
            detector.step(now, |_| true) == [ConflictAction::Announce(key.clone())]
        })
        .collect();
    assert_eq!(times, [0, 10, 20]);
}

#[test]
fn thousands_of_addresses_are_paced_by_network() {
    let mut detector = AddressConflictDetector::new(ProbeConfig {
        probes: 3,
        interval: Duration::from_millis(200),
    });
    let network = key().0;
    let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a01_0000 + number));
    let claims = (0..2_000).map(|number| ((network.clone(), address(number)), ClaimKind::Snat));
    detector.retain(claims.collect());
    let other: NetworkAddress = ("b/net".parse().unwrap(), key().1);
    detector.add(other.clone(), ClaimKind::Endpoint);
    let start = Instant::now();
    let (mut first_use, mut steps) = (None, 0);
    while detector.tentative.iter().any(|key| key.0 == network) {
        let now = start + BACKLOG_INTERVAL * steps;
        let actions = detector.step(now, |_| true);
        assert!(actions.len() <= 1 + MAX_STEPS_PER_NETWORK as usize);
        if detector
            .tentative
            .iter()
            .filter(|key| key.0 == network)
            .count()
            < 2_000
        {
            first_use.get_or_insert(now);
        }
        steps += 1;
    }
    assert!(
        first_use.is_some_and(|at| at <= start + Duration::from_secs(1)),
        "some addresses are in use before the others have begun"
    );
    // Three probes and an announcement each, a thousand a second.
    assert!((160..200).contains(&steps), "{steps}");
    assert!(detector.is_claimed(&other), "another network does not wait");
}

#[test]
fn unsettled_addresses_are_listed_with_their_status() {
    let mut detector = fresh(1);
    let network = key().0;
    let address = |last: u8| IpAddr::from([10, 1, 0, last]);
    let claims = [1, 2, 3].map(|last| ((network.clone(), address(last)), ClaimKind::Snat));
    detector.adopt_in_use(claims.into());
    detector.add((network.clone(), address(4)), ClaimKind::Snat);
    let now = Instant::now();
    detector.on_conflict(&(network.clone(), address(2)), OTHER_MAC, USE, now);
    let listed: Vec<_> = detector
        .unsettled(&network, address(1), address(9))
        .collect();
    assert_eq!(
        listed,
        [
            (address(4), ClaimStatus::Probing),
            (address(2), ClaimStatus::Disputed(OTHER_MAC)),
        ]
    );
}
