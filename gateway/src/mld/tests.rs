//! Tests of the state machine, of queries and of frames.

use super::*;
use gateway_common::packet::Mac;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SECOND: Duration = Duration::from_secs(1);

fn group(last: u16) -> Ipv6Addr {
    solicited_node_group(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

fn groups(range: std::ops::Range<u16>) -> BTreeSet<Ipv6Addr> {
    range.map(group).collect()
}

fn query(version: QueryVersion, group: Option<Ipv6Addr>) -> Query {
    Query {
        version,
        group,
        max_response: SECOND,
    }
}

fn report(kind: RecordKind, group: Ipv6Addr) -> [MldMessage; 1] {
    [MldMessage::ReportV2(vec![(kind, group)])]
}

/// Returns a listener of one group that has reported it.
fn settled(now: Instant) -> MulticastListener {
    let mut listener = MulticastListener::default();
    listener.set_groups(groups(1..2));
    listener.step(now);
    listener.step(now + SECOND);
    assert_eq!(listener.step(now + 2 * SECOND), []);
    listener
}

#[test]
fn changes_are_reported_twice() {
    let mut listener = MulticastListener::default();
    let start = Instant::now();
    listener.set_groups(groups(1..2));
    assert_eq!(listener.step(start), report(RecordKind::Joined, group(1)));
    assert_eq!(listener.step(start), []);
    let later = start + SECOND;
    assert_eq!(listener.step(later), report(RecordKind::Joined, group(1)));
    assert_eq!(listener.step(later + SECOND), []);
    listener.set_groups(BTreeSet::new());
    assert!(!listener.is_idle());
    for at in [later, later + SECOND] {
        assert_eq!(listener.step(at), report(RecordKind::Left, group(1)));
    }
    assert!(listener.is_idle());
}

#[test]
fn queries_are_answered_within_the_response_delay() {
    let start = Instant::now();
    let mut listener = settled(start);
    let now = start + 10 * SECOND;
    for asked in [None, Some(group(1))] {
        listener.on_query(query(QueryVersion::V2, asked), now);
        let answer = listener.step(now + SECOND);
        assert_eq!(answer, report(RecordKind::IsListened, group(1)));
        assert_eq!(listener.step(now + SECOND), []);
    }
    listener.on_query(query(QueryVersion::V2, Some(group(2))), now);
    assert_eq!(listener.step(now + SECOND), []);
}

#[test]
fn querier_of_version_1_gets_messages_of_version_1() {
    let start = Instant::now();
    let mut listener = settled(start);
    let now = start + 10 * SECOND;
    listener.on_query(query(QueryVersion::V1, None), now);
    let answer = listener.step(now + SECOND);
    assert_eq!(answer, [MldMessage::ReportV1(group(1))]);
    listener.set_groups(groups(2..3));
    assert_eq!(
        listener.step(now + SECOND),
        [MldMessage::DoneV1(group(1)), MldMessage::ReportV1(group(2))]
    );
    // Long after the last query of version 1, a querier of version 2 is answered in its version again.
    let much_later = now + OLDER_VERSION_TIMEOUT;
    listener.step(much_later);
    listener.on_query(query(QueryVersion::V2, None), much_later);
    let answer = listener.step(much_later + SECOND);
    assert_eq!(answer, report(RecordKind::IsListened, group(2)));
}

#[test]
fn thousands_of_groups_are_reported_in_parts() {
    let mut listener = MulticastListener::default();
    let all = groups(0..5_000);
    listener.set_groups(all.clone());
    let (mut now, mut reported, mut steps) = (Instant::now(), BTreeSet::new(), 0);
    while reported.len() < all.len() {
        let messages = listener.step(now);
        assert!(!messages.is_empty() && messages.len() <= MAX_MESSAGES);
        for message in messages {
            assert!(message.frame(Mac::default(), SOURCE).len() <= 14 + 1_280);
            let MldMessage::ReportV2(records) = message else {
                panic!("{message:?}");
            };
            reported.extend(records.into_iter().map(|(_, group)| group));
        }
        now += Duration::from_millis(50);
        steps += 1;
    }
    assert_eq!((reported, steps), (all, 2));
}

#[test]
fn interface_that_came_back_joins_again() {
    let start = Instant::now();
    let mut listener = settled(start);
    listener.rejoin();
    let now = start + 10 * SECOND;
    assert_eq!(listener.step(now), report(RecordKind::Joined, group(1)));
}

/// Sends many queries before each step, for ten seconds, and returns the largest number of messages of a step, and the
/// sum of all.
fn flood(listener: &mut MulticastListener, queries: &[Query]) -> (usize, usize) {
    let start = Instant::now();
    let (mut largest, mut sum) = (0, 0);
    for step in 0..100 {
        let now = start + step * SECOND / 10;
        for _ in 0..10 {
            for query in queries {
                listener.on_query(*query, now);
            }
        }
        let sent = listener.step(now).len();
        largest = largest.max(sent);
        sum += sent;
    }
    (largest, sum)
}

fn listener_of(count: u16, start: Instant) -> MulticastListener {
    let mut listener = MulticastListener {
        groups: groups(0..count),
        ..MulticastListener::default()
    };
    assert_eq!(listener.step(start), []);
    listener
}

#[test]
fn flood_of_queries_is_answered_at_the_pace_of_steps() {
    for version in [QueryVersion::V1, QueryVersion::V2] {
        let mut listener = listener_of(1_000, Instant::now());
        let queries: Vec<Query> = std::iter::once(None)
            .chain((0..200).map(|last| Some(group(last))))
            .map(|asked| Query {
                max_response: Duration::ZERO,
                ..query(version, asked)
            })
            .collect();
        let (largest, sum) = flood(&mut listener, &queries);
        assert!(largest <= MAX_MESSAGES, "{version:?}: {largest}");
        assert!(sum > 0 && sum <= 100 * MAX_MESSAGES, "{version:?}: {sum}");
    }
}

#[test]
fn queries_for_groups_are_bounded_between_steps() {
    let now = Instant::now();
    let mut listener = listener_of(1_000, now);
    for last in 0..1_000 {
        listener.on_query(query(QueryVersion::V1, Some(group(last))), now);
    }
    assert_eq!(listener.pending.len(), MAX_GROUP_QUERIES as usize);
    let sent = listener.step(now + SECOND).len();
    assert_eq!(sent, MAX_GROUP_QUERIES as usize);
    // The next ones are taken after the step.
    listener.on_query(query(QueryVersion::V1, Some(group(999))), now);
    let answer = listener.step(now + SECOND);
    assert_eq!(answer, [MldMessage::ReportV1(group(999))]);
}

#[test]
fn general_query_of_version_1_schedules_nothing_for_each_group() {
    let now = Instant::now();
    let mut listener = listener_of(1_000, now);
    listener.on_query(query(QueryVersion::V1, None), now);
    assert!(listener.pending.is_empty());
    let mut reported = BTreeSet::new();
    for _ in 0..1_000 / MAX_MESSAGES {
        let messages = listener.step(now + SECOND);
        assert_eq!(messages.len(), MAX_MESSAGES);
        assert!(listener.pending.is_empty());
        reported.extend(messages.into_iter().map(|message| match message {
            MldMessage::ReportV1(group) => group,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(reported, groups(0..1_000));
    assert_eq!(listener.step(now + SECOND), []);
}

#[test]
fn general_query_without_a_response_delay_is_answered_after_a_random_one() {
    let now = Instant::now();
    let delayed = (0..20).filter(|_| {
        let mut listener = listener_of(1, now);
        let at_once = Query {
            max_response: Duration::ZERO,
            ..query(QueryVersion::V2, None)
        };
        listener.on_query(at_once, now);
        let is_delayed = listener.step(now).is_empty();
        let answer = listener.step(now + SECOND);
        assert_eq!(answer.is_empty(), !is_delayed);
        is_delayed
    });
    // One in a thousand has no delay.
    assert!(delayed.count() > 10);
}

/// Returns the frame of a query with this message behind the IPv6 header and the options.
fn query_frame(source: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut frame = MldMessage::ReportV1(to).frame(Mac::default(), source);
    frame.truncate(frames::MESSAGE_OFFSET);
    let length = u16::try_from(8 + message.len()).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    let mut message = message.to_vec();
    let sum = frames::checksum(source, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(message);
    frame
}

fn query_message(length: usize, code: u16, group: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![0; length];
    message[0] = 130;
    message[4..6].copy_from_slice(&code.to_be_bytes());
    message[8..24].copy_from_slice(&group.octets());
    message
}

#[test]
fn queries_are_parsed() {
    let general = Ipv6Addr::UNSPECIFIED;
    for (length, code, asked, version, milliseconds) in [
        (24, 10_000, general, QueryVersion::V1, 10_000),
        (28, 10_000, general, QueryVersion::V2, 10_000),
        (28, 0x8000, group(7), QueryVersion::V2, 32_768),
        (44, 0x9001, group(7), QueryVersion::V2, 0x1001 << 4),
    ] {
        let frame = query_frame(SOURCE, &query_message(length, code, asked));
        let expected = Query {
            version,
            group: (asked != general).then_some(asked),
            max_response: Duration::from_millis(milliseconds),
        };
        assert_eq!(Query::parse(&frame), Some(expected));
        for end in 0..frame.len() {
            assert_eq!(Query::parse(&frame[..end]), None, "cut off at {end}");
        }
    }
}

#[test]
fn invalid_queries_are_ignored() {
    let valid = query_frame(SOURCE, &query_message(28, 1, group(7)));
    let with = |at: usize, value: u8| {
        let mut frame = valid.clone();
        frame[at] = value;
        frame
    };
    assert!(Query::parse(&valid).is_some());
    for (what, frame) in [
        ("EtherType", with(13, 0)),
        ("hop limit", with(21, 2)),
        ("option", with(56, 1)),
        ("checksum", with(64, valid[64] ^ 1)),
        (
            "source",
            query_frame(group(1), &query_message(28, 1, group(7))),
        ),
        (
            "length",
            query_frame(SOURCE, &query_message(26, 1, group(7))),
        ),
        ("type", query_frame(SOURCE, &[131; 28])),
    ] {
        assert_eq!(Query::parse(&frame), None, "{what}");
    }
}

#[test]
fn report_is_as_the_rfc_shows_it() {
    let message = MldMessage::ReportV2(vec![(RecordKind::Joined, group(0x110))]);
    let frame = message.frame(Mac::new([2, 0, 0, 0, 0, 5]), Ipv6Addr::UNSPECIFIED);
    assert_eq!(
        frame[..14],
        [0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 5, 0x86, 0xdd]
    );
    assert_eq!(
        frame[18..22],
        [0, 36, 0, 1],
        "payload length, options, hop limit 1"
    );
    assert_eq!(frame[54..62], [58, 0, 5, 2, 0, 0, 1, 0], "router alert");
    assert_eq!(frame[62..64], [143, 0]);
    assert_eq!(
        frame[68..74],
        [0, 1, 4, 0, 0, 0],
        "one record: change to exclude"
    );
    assert_eq!(frame[74..], group(0x110).octets());
    let sum = frames::checksum(
        Ipv6Addr::UNSPECIFIED,
        frames_destination(&frame),
        &frame[62..],
    );
    assert_eq!(sum, 0);
}

fn frames_destination(frame: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&frame[38..54]).unwrap().into()
}
