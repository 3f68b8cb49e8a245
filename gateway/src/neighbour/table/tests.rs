use super::{entry::LOCK_TIME, *};
use crate::neighbour::MessageKind;

const SECOND: Duration = Duration::from_secs(1);
const OLD: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const NEW: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

fn neighbour() -> Neighbour {
    (4, "10.1.0.10".parse().unwrap())
}

fn sender() -> Sender {
    Sender::Address("10.1.0.1".parse().unwrap())
}

/// Table with one neighbour, and a clock.
struct World {
    table: NeighbourTable,
    now: Instant,
}

impl World {
    fn new(known: Option<Mac>) -> Self {
        let mut table = NeighbourTable::default();
        let now = Instant::now();
        table.want(neighbour(), known, now);
        Self { table, now }
    }

    /// Returns a world in which the neighbour was resolved.
    fn reachable() -> Self {
        let mut world = Self::new(None);
        assert_eq!(world.step(), [None]);
        world.hear(MessageKind::ArpReply, OLD);
        assert_eq!(world.step(), []);
        world
    }

    /// Returns the destinations of the solicitations that are due.
    fn step(&mut self) -> Vec<Option<Mac>> {
        let solicitations = self.table.step(self.now, |_| sender());
        let destinations = solicitations.into_iter().map(|solicitation| {
            assert_eq!(solicitation.neighbour, neighbour());
            assert_eq!(solicitation.sender, sender());
            solicitation.destination
        });
        destinations.collect()
    }

    /// Returns the destinations of the solicitations that are due, after checking that the neighbour is not asked again
    /// sooner than allowed.
    fn step_a_second_later(&mut self) -> Vec<Option<Mac>> {
        assert_eq!(self.step(), [], "asked a short time ago");
        assert_eq!(self.wait(), SECOND);
        self.step()
    }

    /// Goes on to the next step, and returns the time until then.
    fn wait(&mut self) -> Duration {
        let next = self.table.next_step().unwrap();
        let waited = next.duration_since(self.now);
        self.now = next;
        waited
    }

    fn hear(&mut self, kind: MessageKind, mac: impl Into<Option<Mac>>) {
        let message = NeighbourMessage {
            address: neighbour().1,
            mac: mac.into(),
            kind,
        };
        self.table.on_message(4, &message, self.now);
    }

    fn mac(&self) -> Option<Mac> {
        self.table.mac(&neighbour())
    }

    fn is_changed(&mut self) -> bool {
        !self.table.take_changed().is_empty()
    }
}

const fn advertisement(solicited: bool, overrides: bool) -> MessageKind {
    MessageKind::Advertisement {
        solicited,
        overrides,
    }
}

#[test]
fn unresolved_neighbour_is_asked_for_each_second_for_ever() {
    let mut world = World::new(None);
    let start = world.now;
    for count in 1..=200 {
        assert_eq!(world.step(), [None]);
        let unanswered = world.table.unanswered(&neighbour()).unwrap();
        assert_eq!((unanswered.count, unanswered.since), (count, start));
        assert_eq!(world.step(), [], "nothing more within the second");
        assert_eq!(world.wait(), SECOND);
    }
    world.hear(MessageKind::ArpReply, OLD);
    assert_eq!(world.mac(), Some(OLD));
    assert_eq!(world.table.unanswered(&neighbour()), None);
}

#[test]
fn first_missing_answer_counts_as_a_change() {
    let mut world = World::new(None);
    assert!(world.is_changed());
    world.step();
    assert!(!world.is_changed());
    world.wait();
    world.step();
    assert!(world.is_changed());
    world.wait();
    world.step();
    assert!(!world.is_changed());
}

#[test]
fn reachable_neighbour_is_confirmed_again_by_unicast() {
    let mut world = World::reachable();
    for _ in 0..20 {
        let waited = world.wait();
        assert!(
            (MIN_REACHABLE_TIME..2 * MIN_REACHABLE_TIME).contains(&waited),
            "{waited:?}"
        );
        assert_eq!(world.step(), [Some(OLD)]);
        assert_eq!(world.mac(), Some(OLD));
        world.hear(MessageKind::ArpReply, OLD);
    }
}

#[test]
fn three_missing_confirmations_make_a_neighbour_unreachable() {
    let mut world = World::reachable();
    world.is_changed();
    world.wait();
    assert_eq!(world.step(), [Some(OLD)]);
    for _ in 1..PROBE_NUM {
        assert_eq!(world.wait(), SECOND);
        assert_eq!(world.step(), [None]);
        assert_eq!(world.mac(), Some(OLD));
    }
    assert!(!world.is_changed());
    assert_eq!(world.wait(), SECOND);
    assert_eq!(world.step(), [None]);
    assert_eq!(world.mac(), None);
    assert!(world.is_changed());
    assert_eq!(world.wait(), SECOND);
    assert_eq!(world.step(), [None]);
    assert_eq!(world.table.unanswered(&neighbour()).unwrap().count, 5);
}

#[test]
fn neighbour_that_moved_in_silence_is_found_by_the_second_solicitation() {
    let mut world = World::reachable();
    world.wait();
    assert_eq!(world.step(), [Some(OLD)]);
    assert_eq!(world.wait(), SECOND);
    assert_eq!(world.step(), [None]);
    world.hear(MessageKind::ArpReply, NEW);
    assert_eq!(world.mac(), Some(NEW));
}

#[test]
fn known_mac_address_is_used_until_three_solicitations_are_missed() {
    let mut world = World::new(Some(OLD));
    assert!(world.is_changed());
    assert_eq!(world.mac(), Some(OLD));
    for _ in 0..PROBE_NUM {
        assert_eq!(world.mac(), Some(OLD));
        assert_eq!(world.step(), [None]);
        assert_eq!(world.wait(), SECOND);
    }
    world.step();
    assert_eq!(world.mac(), None);
}

#[test]
fn announcement_of_another_mac_address_counts_at_once() {
    let mut world = World::reachable();
    world.is_changed();
    world.hear(MessageKind::Announcement, NEW);
    assert_eq!(world.mac(), Some(NEW));
    assert!(world.is_changed());
    assert!(!world.table.is_confirmed(&neighbour()));
    assert_eq!(world.step_a_second_later(), [Some(NEW)]);
    world.hear(MessageKind::ArpReply, NEW);
    assert!(world.table.is_confirmed(&neighbour()));
    assert!(world.is_changed(), "the first confirmation");
    world.hear(MessageKind::ArpReply, NEW);
    assert!(!world.is_changed());
    // Of the same address, it is no proof that the neighbour receives frames.
    let before = world.table.next_step();
    world.now += SECOND;
    world.hear(MessageKind::Announcement, NEW);
    assert_eq!(world.table.next_step(), before);
}

#[test]
fn first_of_several_arp_replies_wins() {
    let mut world = World::reachable();
    world.hear(MessageKind::ArpReply, NEW);
    assert_eq!(world.mac(), Some(OLD));
    world.now += LOCK_TIME;
    world.hear(MessageKind::ArpReply, NEW);
    assert_eq!(world.mac(), Some(NEW));
}

#[test]
fn advertisements_follow_their_flags() {
    // RFC 4861, section 7.2.5, for an incomplete entry.
    let mut world = World::new(None);
    world.step();
    world.hear(advertisement(true, true), None);
    assert_eq!(world.mac(), None);
    world.hear(advertisement(false, false), OLD);
    assert_eq!(world.mac(), Some(OLD));
    assert_eq!(world.step_a_second_later(), [Some(OLD)]);
    world.hear(advertisement(true, false), None);
    assert_eq!(world.step(), []);
    assert!(world.wait() >= MIN_REACHABLE_TIME);
    // Another address without the flag Override changes nothing, but is reason to ask.
    world.hear(advertisement(false, false), NEW);
    assert_eq!(world.mac(), Some(OLD));
    assert_eq!(world.step(), [Some(OLD)]);
    // As before, and the answer to the solicitation is still awaited.
    world.hear(advertisement(true, false), NEW);
    assert_eq!(world.mac(), Some(OLD));
    // With the flag it replaces the old one, and is proof only as an answer.
    world.hear(advertisement(false, true), NEW);
    assert_eq!(world.mac(), Some(NEW));
    assert_eq!(world.step_a_second_later(), [Some(NEW)]);
    world.hear(advertisement(true, true), OLD);
    assert_eq!(world.mac(), Some(OLD));
    assert_eq!(world.step(), []);
}

#[test]
fn solicitation_from_another_mac_address_counts_at_once() {
    let mut world = World::reachable();
    world.hear(MessageKind::Solicitation, NEW);
    assert_eq!(world.mac(), Some(NEW));
    assert_eq!(world.step_a_second_later(), [Some(NEW)]);
}

#[test]
fn messages_of_others_and_impossible_mac_addresses_are_ignored() {
    let mut world = World::new(None);
    world.step();
    let other = NeighbourMessage {
        address: "10.1.0.11".parse().unwrap(),
        mac: Some(OLD),
        kind: MessageKind::ArpReply,
    };
    world.table.on_message(4, &other, world.now);
    let elsewhere = NeighbourMessage {
        address: neighbour().1,
        ..other
    };
    world.table.on_message(5, &elsewhere, world.now);
    world.hear(MessageKind::ArpReply, Mac::default());
    world.hear(MessageKind::ArpReply, Mac::new([1, 0, 0, 0, 0, 1]));
    assert_eq!(world.mac(), None);
}

#[test]
fn doubt_confirms_a_reachable_neighbour_at_most_each_second() {
    let mut world = World::reachable();
    world.table.recheck(neighbour(), false, world.now);
    assert_eq!(world.step(), []);
    assert_eq!(world.wait(), SECOND);
    assert_eq!(world.step(), [Some(OLD)]);
    assert_eq!(world.mac(), Some(OLD));
    world.hear(MessageKind::ArpReply, OLD);
    world.now += 2 * SECOND;
    world.table.recheck_interface(5, world.now);
    assert_eq!(world.step(), []);
    world.table.recheck_interface(4, world.now);
    assert_eq!(world.step(), [Some(OLD)]);
    world.hear(MessageKind::ArpReply, OLD);
    world.now += 2 * SECOND;
    world.table.recheck(neighbour(), true, world.now);
    assert_eq!(world.step(), [None]);
}

#[test]
fn configured_mac_address_is_not_asked_for() {
    let mut world = World::new(None);
    world.step();
    world.table.set_static(neighbour(), Some(NEW), world.now);
    assert_eq!(world.mac(), Some(NEW));
    assert_eq!(world.table.next_step(), None);
    world.hear(MessageKind::Announcement, OLD);
    assert_eq!(world.mac(), Some(NEW));
    world.table.set_static(neighbour(), None, world.now);
    assert_eq!(world.step_a_second_later(), [None]);
    assert_eq!(world.mac(), Some(NEW));
}

#[test]
fn nothing_counts_as_asked_without_a_sender() {
    for missing in [Sender::Missing, Sender::UnusableInterface] {
        let mut world = World::new(Some(OLD));
        world.is_changed();
        for _ in 0..PROBE_NUM {
            assert_eq!(world.mac(), Some(OLD));
            assert_eq!(world.table.step(world.now, |_| missing), []);
            assert_eq!(world.wait(), SECOND);
        }
        // The MAC address can't be confirmed, so it counts no more.
        world.is_changed();
        assert_eq!(world.table.step(world.now, |_| missing), []);
        assert_eq!(world.mac(), None);
        assert!(world.is_changed());
        let unanswered = world.table.unanswered(&neighbour()).unwrap();
        assert_eq!((unanswered.count, unanswered.sender), (0, missing));
        assert_eq!(world.wait(), SECOND);
        assert_eq!(world.step(), [None]);
        assert!(world.is_changed());
        let unanswered = world.table.unanswered(&neighbour()).unwrap();
        assert_eq!((unanswered.count, unanswered.since), (1, world.now));
    }
}

#[test]
fn known_mac_address_has_its_time_to_be_confirmed_once_there_is_a_sender() {
    let mut world = World::new(Some(OLD));
    for _ in 1..PROBE_NUM {
        assert_eq!(world.table.step(world.now, |_| Sender::Missing), []);
        world.wait();
    }
    for _ in 0..PROBE_NUM {
        assert_eq!(world.step(), [None]);
        assert_eq!(world.mac(), Some(OLD));
        world.wait();
    }
    world.step();
    assert_eq!(world.mac(), None);
}

#[test]
fn hosts_that_claim_an_address_in_turn_change_it_once_a_second() {
    for kind in [
        MessageKind::Announcement,
        MessageKind::Solicitation,
        advertisement(false, true),
        advertisement(true, true),
    ] {
        let mut world = World::reachable();
        world.is_changed();
        let start = world.now;
        let (mut changes, mut asked) = (0, 0);
        for number in 0..300_u64 {
            world.now = start + Duration::from_millis(10 * number);
            world.hear(kind, if number % 2 == 0 { NEW } else { OLD });
            changes += u32::from(world.is_changed());
            if number == 0 {
                assert_eq!(world.mac(), Some(NEW), "the first change counts at once");
            }
            asked += world.step().len();
        }
        assert!(changes <= 6, "{kind:?}: {changes} changes in three seconds");
        assert!((1..=3).contains(&asked), "{kind:?}: asked {asked} times");
    }
}

#[test]
fn claim_that_is_ignored_is_reason_to_ask_all_hosts() {
    let mut world = World::reachable();
    world.hear(MessageKind::Announcement, NEW);
    assert_eq!(world.step_a_second_later(), [Some(NEW)]);
    world.hear(MessageKind::ArpReply, NEW);
    world.now += SECOND;
    world.hear(MessageKind::Announcement, OLD);
    world.hear(MessageKind::Announcement, NEW);
    assert_eq!(world.mac(), Some(OLD), "the second one is ignored");
    assert_eq!(world.step(), [None]);
}

#[test]
fn neighbours_that_change_all_the_time_keep_no_others_waiting() {
    let mut table = NeighbourTable::default();
    let start = Instant::now();
    // More than the pacing allows in a second.
    let flapping: Vec<Neighbour> = (0..3_000_u32)
        .map(|number| (4, IpAddr::from((0x0a01_0000 + number).to_be_bytes())))
        .collect();
    for neighbour in &flapping {
        table.want(*neighbour, Some(OLD), start);
    }
    // It sorts after all others.
    let other: Neighbour = (5, "10.9.0.1".parse().unwrap());
    table.want(other, None, start);
    let mut asked = Vec::new();
    for round in 0..400_u64 {
        let now = start + Duration::from_millis(10 * round);
        for neighbour in &flapping {
            let message = NeighbourMessage {
                address: neighbour.1,
                mac: Some(if round % 2 == 0 { NEW } else { OLD }),
                kind: MessageKind::Announcement,
            };
            table.on_message(4, &message, now);
        }
        let solicitations = table.step(now, |_| sender());
        let mut solicitations = solicitations.iter();
        if solicitations.any(|solicitation| solicitation.neighbour == other) {
            asked.push(now);
        }
    }
    // A backlog of 3,000 takes one and a half seconds.
    assert!(
        asked.len() >= 2,
        "asked {} times in four seconds",
        asked.len()
    );
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] <= 3 * SECOND, "{asked:?}");
    }
}

#[test]
fn unwanted_neighbour_is_forgotten() {
    let mut world = World::reachable();
    world.table.unwant(&neighbour());
    assert_eq!(world.table.next_step(), None);
    assert_eq!(world.mac(), None);
    assert!(!world.is_changed());
}

#[test]
fn solicitations_are_paced_and_idle_neighbours_cost_no_step() {
    let mut table = NeighbourTable::default();
    let start = Instant::now();
    let all: Vec<Neighbour> = (0..10_000_u32)
        .map(|number| (4, IpAddr::from((0x0a01_0000 + number).to_be_bytes())))
        .collect();
    for neighbour in &all {
        table.want(*neighbour, None, start);
    }
    let (mut now, mut sent, mut steps) = (start, 0, 0);
    while sent < all.len() {
        let solicitations = table.step(now, |_| sender());
        assert!(solicitations.len() <= 40);
        for solicitation in &solicitations {
            let message = NeighbourMessage {
                address: solicitation.neighbour.1,
                mac: Some(OLD),
                kind: MessageKind::ArpReply,
            };
            table.on_message(4, &message, now);
        }
        sent += solicitations.len();
        steps += 1;
        now = table.next_step().unwrap();
    }
    assert_eq!(steps, 250);
    // Resolved: the next step is that of the first confirmation.
    assert!(now >= start + MIN_REACHABLE_TIME);
    assert_eq!(table.step(now - SECOND, |_| sender()), []);
}
