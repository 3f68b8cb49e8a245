//! Identifications of fragments: no receiver joins fragments of two senders.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{DropReason, Verdict, drop_reason::Attribution, maps::IdentificationState};
use serde_json::Value;
use tests::{
    differential::{CLIENT, DNS, DifferentialHarness, ENDPOINT, Side, udp, with_harness},
    packet::Packet,
    scenario::{CLIENT_PORT, ProviderFlow, Scenario, datagram, ip, piece},
};

use super::open_udp_flow;
use crate::{ScenarioCase, run_scenarios};

/// The identification that every sender in these rows chooses.
const SENDER_ID: u32 = 9;

/// A client that appears from the same address towards the same backend as the path's own.
struct SharedSnatClient {
    side: Side,
    client: SocketAddr,
}

/// Finds a neighbour among the clients of a side, whose packets go along a path.
#[track_caller]
fn find_snat_sharer_on(
    lab: &mut DifferentialHarness,
    scenario: Scenario,
    side: Side,
    flow: ProviderFlow,
) -> SharedSnatClient {
    for host in 6..=250 {
        let address: IpAddr = if scenario.is_v4() {
            [10, 0, 0, host].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, host.into()].into()
        };
        let client = (address, CLIENT_PORT).into();
        let question = datagram(client, scenario.name_server(), b"x").sent_to(side);
        let ends = scenario.went_to_service(&lab.send(side, &question), DNS);
        if (ends.nat.ip(), ends.backend) == (flow.nat.ip(), flow.backend) {
            return SharedSnatClient { side, client };
        }
    }
    panic!("no client shares the address {}", flow.nat.ip());
}

/// Finds a neighbour: another consumer's client where the path has two consumers.
#[track_caller]
fn find_snat_sharer(
    lab: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
) -> SharedSnatClient {
    let side = if scenario.is_mixed() {
        Side::A
    } else {
        Side::B
    };
    find_snat_sharer_on(lab, scenario, side, flow)
}

/// A datagram of two fragments. Nothing but the identification says what belongs together: there is no
/// checksum where both sides can do without.
fn in_two_fragments(scenario: Scenario, whole: Packet) -> Vec<Packet> {
    let whole = if scenario.is_v4() && scenario.provider_is_v4() {
        whole.without_udp_checksum()
    } else {
        whole
    };
    let fragments = whole.fragments(1_400, SENDER_ID);
    assert_eq!(fragments.len(), 2);
    fragments
}

/// A client's question, in two fragments.
fn fragmented_request(scenario: Scenario, client: SocketAddr, side: Side, byte: u8) -> Vec<Packet> {
    let whole = datagram(client, scenario.name_server(), &[byte; 2_000]);
    let fragments = in_two_fragments(scenario, whole).into_iter();
    fragments.map(|fragment| fragment.sent_to(side)).collect()
}

/// Joins fragments as a receiver does: by source, destination, protocol and identification, the first
/// at each offset. Returns the data of each datagram.
fn reassemble_as_receiver(fragments: &[Packet]) -> Vec<Vec<u8>> {
    let mut datagrams: BTreeMap<_, BTreeMap<u16, Vec<u8>>> = BTreeMap::new();
    for fragment in fragments {
        let (source, destination, _) = ip(fragment);
        let piece = piece(fragment);
        let key = (source, destination, piece.protocol, piece.id);
        let pieces = datagrams.entry(key).or_default();
        pieces.entry(piece.offset).or_insert(piece.bytes);
    }
    let whole = datagrams
        .into_values()
        .map(|pieces| pieces.into_values().collect::<Vec<_>>().concat());
    // Behind the UDP header.
    let mut data: Vec<_> = whole.map(|whole| whole[8..].to_vec()).collect();
    data.sort();
    data
}

/// Sends two datagrams in the order A's head, B's head, B's tail, A's tail, demands that each arrives as
/// it was sent, and returns their identifications.
#[track_caller]
fn expect_not_mixed(
    lab: &mut DifferentialHarness,
    to: Side,
    (a, from_a): (&[Packet], Side),
    (b, from_b): (&[Packet], Side),
) -> [u32; 2] {
    let order = [
        (from_a, &a[0]),
        (from_b, &b[0]),
        (from_b, &b[1]),
        (from_a, &a[1]),
    ];
    let out = order.map(|(side, fragment)| lab.send(side, fragment).expect_forwarded(to).packet);
    let wanted = [vec![b'a'; 2_000], vec![b'b'; 2_000]];
    assert!(reassemble_as_receiver(&out) == wanted, "{out:#?}");
    [piece(&out[0]).id, piece(&out[1]).id]
}

/// The identification that a first fragment leaves with.
#[track_caller]
fn forwarded_id(lab: &mut DifferentialHarness, from: Side, to: Side, fragment: &Packet) -> u32 {
    piece(&lab.send(from, fragment).expect_forwarded(to).packet).id
}

/// Numbers that IPv4 fragments leave with.
const FRAGMENT_IDS: u32 = 0xc000;

const CASES: &[ScenarioCase] = &[
    (
        "fragments of two consumers behind one address are never joined",
        |lab, scenario| {
            let (flow, _) = open_udp_flow(lab, scenario);
            let other = find_snat_sharer(lab, scenario, flow);
            let a = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            let b = fragmented_request(scenario, other.client, other.side, b'b');
            expect_not_mixed(lab, Side::Provider, (&a, Side::A), (&b, other.side));
        },
    ),
    (
        "fragments of consumers of both families behind one address are never joined",
        |lab, scenario| {
            if scenario.is_v4() || !scenario.provider_is_v4() {
                return;
            }
            let (flow, _) = open_udp_flow(lab, scenario);
            let [v4, ..] = Scenario::ALL;
            let other = find_snat_sharer_on(lab, v4, Side::A, flow);
            let a = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            let b = fragmented_request(v4, other.client, Side::A, b'b');
            let ids = expect_not_mixed(lab, Side::Provider, (&a, Side::A), (&b, Side::A));
            // Flows of either family take theirs from one count.
            assert_eq!((ids[0] + 1) % FRAGMENT_IDS, ids[1]);
        },
    ),
    (
        "fragments of two backends to one client are never joined",
        |lab, scenario| {
            let (first, _) = open_udp_flow(lab, scenario);
            let second = (CLIENT_PORT + 1..CLIENT_PORT + 100)
                .map(|port| {
                    let client = (scenario.client_ip(), port).into();
                    let sent = lab.send(Side::A, &datagram(client, scenario.name_server(), b"x"));
                    scenario.went_to_service(&sent, DNS)
                })
                .find(|flow| flow.backend != first.backend)
                .expect("a flow to the other backend");
            let a = in_two_fragments(scenario, first.answer(&[b'a'; 2_000]));
            let b = in_two_fragments(scenario, second.answer(&[b'b'; 2_000]));
            expect_not_mixed(lab, Side::A, (&a, Side::Provider), (&b, Side::Provider));
        },
    ),
    (
        "each datagram of a sender gets an identification of its own",
        |lab, scenario| {
            let fragments = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            let mut ids: Vec<u32> = (0..4)
                .map(|_| forwarded_id(lab, Side::A, Side::Provider, &fragments[0]))
                .collect();
            // Later fragments follow the latest first one.
            let tail = forwarded_id(lab, Side::A, Side::Provider, &fragments[1]);
            assert_eq!(Some(&tail), ids.last());
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 4, "{ids:?}");
        },
    ),
    (
        "identifications begin again at their end",
        |lab, scenario| {
            let fragments = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            forwarded_id(lab, Side::A, Side::Provider, &fragments[0]);
            lab.set_identifications(IdentificationState {
                fragments_v4: u64::from(FRAGMENT_IDS) - 1,
                unfragmented_v4: u64::MAX,
                fragments_v6: u64::MAX,
            });
            let ids = [0; 2].map(|_| forwarded_id(lab, Side::A, Side::Provider, &fragments[0]));
            if scenario.provider_is_v4() {
                assert!(ids.iter().all(|id| *id < FRAGMENT_IDS), "{ids:?}");
                assert_eq!((ids[0] + 1) % FRAGMENT_IDS, ids[1]);
            } else {
                assert_eq!(ids[0].wrapping_add(1), ids[1]);
            }
        },
    ),
    (
        "with every identification in use, a datagram's fragments are counted",
        |lab, scenario| {
            let fragments = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            forwarded_id(lab, Side::A, Side::Provider, &fragments[0]);
            lab.set_identifications(IdentificationState {
                fragments_v4: u64::MAX << 16,
                ..IdentificationState::default()
            });
            let client = (scenario.client_ip(), CLIENT_PORT + 1).into();
            let other =
                datagram(client, scenario.name_server(), &[b'b'; 2_000]).fragments(1_400, 8);
            // Whole datagrams go on.
            let whole = datagram(client, scenario.name_server(), b"x");
            let sent = lab.send(Side::A, &whole);
            let spent = scenario.went_to_service(&sent, DNS);
            let first = lab.send(Side::A, &fragments[0]);
            if scenario.provider_is_v4() {
                first.expect_dropped(DropReason::FragmentIdExhausted);
            } else {
                first.expect_forwarded(Side::Provider);
                lab.send(Side::A, &other[0])
                    .expect_forwarded(Side::Provider);
                lab.send(Side::A, &other[1])
                    .expect_forwarded(Side::Provider);
            }
            // What was let through before still gets its rest.
            lab.send(Side::A, &fragments[1])
                .expect_forwarded(Side::Provider);
            assert_eq!(spent.nat.is_ipv4(), scenario.provider_is_v4());
        },
    ),
    (
        "a later fragment does not follow its flow to another backend",
        |lab, scenario| {
            let (flow, _) = open_udp_flow(lab, scenario);
            let fragments = fragmented_request(scenario, scenario.client(), Side::A, b'a');
            lab.send(Side::A, &fragments[0])
                .expect_forwarded(Side::Provider);
            let gone = flow.backend.ip().to_string();
            lab.change_service(scenario.service, |spec| {
                let backends = spec["resources"][0]["backends"].as_array_mut();
                let other = |backend: &Value| backend["address"] != gone.as_str();
                backends.expect("a list").retain(other);
            });
            let (second, _) = open_udp_flow(lab, scenario);
            assert_ne!(second.backend, flow.backend);
            lab.send(Side::A, &fragments[1])
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "a packet that routers may fragment gets an identification, half-open and established",
        |lab, scenario| {
            if scenario.is_mixed() || !scenario.is_v4() {
                return;
            }
            let (flow, _) = open_udp_flow(lab, scenario);
            let other = find_snat_sharer(lab, scenario, flow);
            let id = |lab: &mut DifferentialHarness, from: Side, to: Side, packet: &Packet| {
                lab.send(from, packet).expect_forwarded(to).ipv4().id
            };
            let chosen = u16::try_from(SENDER_ID).expect("small");
            let may = |packet: Packet| packet.edit_ipv4(|ip| (ip.fragment, ip.id) = (0, chosen));
            let there = may(scenario.question(b"question"));
            let others =
                datagram(other.client, scenario.name_server(), b"question").sent_to(other.side);
            let mut ids = vec![
                id(lab, Side::A, Side::Provider, &there),
                id(lab, other.side, Side::Provider, &may(others)),
            ];
            let back = may(flow.answer(b"answer"));
            let answered = id(lab, Side::Provider, Side::A, &back);
            for _ in 0..2 {
                ids.push(id(lab, Side::A, Side::Provider, &there));
            }
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 4, "{ids:?}");
            assert!(ids.iter().all(|id| u32::from(*id) >= FRAGMENT_IDS));
            // Established now.
            assert_ne!(id(lab, Side::Provider, Side::A, &back), answered);
            let must_not = |packet: Packet| packet.edit_ipv4(|ip| ip.id = chosen);
            let kept = must_not(scenario.question(b"question"));
            assert_eq!(id(lab, Side::A, Side::Provider, &kept), chosen);
        },
    ),
];

#[test]
fn fragments_of_two_senders_are_never_reassembled_together() {
    run_scenarios(CASES);
}

/// Two uses of an identification are as far apart as a fragment may be around: 32 seconds in which later
/// fragments are forwarded, and 60 that the receiver waits.
#[test]
fn identification_is_not_reused_within_the_reassembly_timeout() {
    const REASSEMBLY_TIMEOUT_NS: u64 = 93_300_000_000;
    with_harness(|lab| {
        let whole = udp((CLIENT, CLIENT_PORT), (ENDPOINT, DNS), &[b'a'; 2_000]);
        let frame = whole.fragments(1_400, SENDER_ID)[0].bytes(false);
        let ifindex = lab.ifindex(Side::A);
        let world = lab.native_maps();
        let mut used: BTreeMap<u16, u64> = BTreeMap::new();
        let (mut allowed, mut refused) = (0, 0);
        // As many as are let through, for longer than any number rests: the burst first.
        while world.extra_nanoseconds < 2 * REASSEMBLY_TIMEOUT_NS {
            let (verdict, after) = world.process(ifindex, &frame);
            if let Verdict::Drop(Attribution { reason, .. }) = verdict {
                assert_eq!(reason, DropReason::FragmentIdExhausted);
                refused += 1;
                world.extra_nanoseconds += 5_000_000;
                continue;
            }
            assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
            allowed += 1;
            let id = u16::from_be_bytes([after[18], after[19]]);
            if let Some(before) = used.insert(id, world.extra_nanoseconds) {
                let apart = world.extra_nanoseconds - before;
                assert!(
                    apart >= REASSEMBLY_TIMEOUT_NS,
                    "{id} again after {apart} ns"
                );
            }
        }
        assert!(allowed > 60_000 && refused > 1_000, "{allowed} {refused}");
    });
}
