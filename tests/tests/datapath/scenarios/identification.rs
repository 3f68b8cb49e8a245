//! Identifications of fragments: no receiver reassembles fragments of two senders.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{DropReason, Verdict, drop_reason::Attribution, maps::IdentificationState};
use serde_json::Value;
use tests::{
    datapath::{
        differential::{CLIENT, DNS, DifferentialHarness, ENDPOINT, Side, udp, with_harness},
        scenario::{CLIENT_PORT, ProviderFlow, Scenario},
    },
    packet::{Packet, builders::udp_datagram, fragments::fragment_of, read::ip_parts},
};

use super::open_udp_flow;
use crate::{ScenarioCase, run_scenarios};

/// The identification that every sender in these cases chooses.
const SENDER_ID: u32 = 9;

/// A client with the same SNAT address and backend as the scenario's own client.
struct SharedSnatClient {
    side: Side,
    client: SocketAddr,
}

/// Finds a client of a side that shares the SNAT address and backend.
#[track_caller]
fn find_snat_sharer_on(
    harness: &mut DifferentialHarness,
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
        let question = udp_datagram(client, scenario.dns_socket(), b"x").sent_to(side);
        let ends = scenario.expect_forwarded_to_service(&harness.send(side, &question), DNS);
        if (ends.nat.ip(), ends.backend) == (flow.nat.ip(), flow.backend) {
            return SharedSnatClient { side, client };
        }
    }
    panic!("no client shares the address {}", flow.nat.ip());
}

/// Finds a client that shares the SNAT address: another consumer's, if the scenario has two consumers.
#[track_caller]
fn find_snat_sharer(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    flow: ProviderFlow,
) -> SharedSnatClient {
    let side = if scenario.is_translated() {
        Side::A
    } else {
        Side::B
    };
    find_snat_sharer_on(harness, scenario, side, flow)
}

/// Splits a datagram into two fragments. Only the identification relates them: the UDP checksum is left out where both
/// families allow that.
fn in_two_fragments(scenario: Scenario, whole: Packet) -> Vec<Packet> {
    let whole = if scenario.is_v4() && scenario.provider_is_v4() {
        whole.without_udp_checksum()
    } else {
        whole
    };
    let fragments = whole.split_into_fragments(1_400, SENDER_ID);
    assert_eq!(fragments.len(), 2);
    fragments
}

/// Returns a client's request in two fragments.
fn fragmented_request(scenario: Scenario, client: SocketAddr, side: Side, byte: u8) -> Vec<Packet> {
    let whole = udp_datagram(client, scenario.dns_socket(), &[byte; 2_000]);
    let fragments = in_two_fragments(scenario, whole).into_iter();
    fragments.map(|fragment| fragment.sent_to(side)).collect()
}

/// Reassembles fragments as a receiver does: by source, destination, protocol and identification. The first fragment at
/// each offset counts. Returns the data of each datagram.
fn reassemble_as_receiver(fragments: &[Packet]) -> Vec<Vec<u8>> {
    let mut datagrams: BTreeMap<_, BTreeMap<u16, Vec<u8>>> = BTreeMap::new();
    for fragment in fragments {
        let (source, destination, _) = ip_parts(fragment);
        let piece = fragment_of(fragment);
        let key = (source, destination, piece.protocol, piece.id);
        let pieces = datagrams.entry(key).or_default();
        pieces.entry(piece.offset).or_insert(piece.bytes);
    }
    let whole = datagrams
        .into_values()
        .map(|pieces| pieces.into_values().collect::<Vec<_>>().concat());
    // The payload starts after the UDP header.
    let mut data: Vec<_> = whole.map(|whole| whole[8..].to_vec()).collect();
    data.sort();
    data
}

/// Sends two datagrams in the order A's head, B's head, B's tail, A's tail. Expects that each arrives as it was sent,
/// and returns their identifications.
#[track_caller]
fn expect_not_mixed(
    harness: &mut DifferentialHarness,
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
    let out =
        order.map(|(side, fragment)| harness.send(side, fragment).expect_forwarded(to).packet);
    let wanted = [vec![b'a'; 2_000], vec![b'b'; 2_000]];
    assert!(reassemble_as_receiver(&out) == wanted, "{out:#?}");
    [fragment_of(&out[0]).id, fragment_of(&out[1]).id]
}

/// Returns the identification of a forwarded first fragment.
#[track_caller]
fn forwarded_id(harness: &mut DifferentialHarness, from: Side, to: Side, fragment: &Packet) -> u32 {
    fragment_of(&harness.send(from, fragment).expect_forwarded(to).packet).id
}

/// Number of identifications for IPv4 fragments.
const FRAGMENT_IDS: u32 = 0xc000;

const CASES: &[ScenarioCase] = &[
    (
        "fragments of two consumers behind one SNAT address are never reassembled together",
        |harness, scenario| {
            let (flow, _) = open_udp_flow(harness, scenario);
            let other = find_snat_sharer(harness, scenario, flow);
            let a = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
            let b = fragmented_request(scenario, other.client, other.side, b'b');
            expect_not_mixed(harness, Side::Provider, (&a, Side::A), (&b, other.side));
        },
    ),
    (
        "fragments of consumers of both families behind one SNAT address are never reassembled together",
        |harness, scenario| {
            if scenario.is_v4() || !scenario.provider_is_v4() {
                return;
            }
            let (flow, _) = open_udp_flow(harness, scenario);
            let [v4, ..] = Scenario::ALL;
            let other = find_snat_sharer_on(harness, v4, Side::A, flow);
            let a = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
            let b = fragmented_request(v4, other.client, Side::A, b'b');
            let ids = expect_not_mixed(harness, Side::Provider, (&a, Side::A), (&b, Side::A));
            // Flows of both families allocate from one counter.
            assert_eq!((ids[0] + 1) % FRAGMENT_IDS, ids[1]);
        },
    ),
    (
        "fragments of two backends to one client are never reassembled together",
        |harness, scenario| {
            let (first, _) = open_udp_flow(harness, scenario);
            let second = (CLIENT_PORT + 1..CLIENT_PORT + 100)
                .map(|port| {
                    let client = (scenario.client_ip(), port).into();
                    let sent =
                        harness.send(Side::A, &udp_datagram(client, scenario.dns_socket(), b"x"));
                    scenario.expect_forwarded_to_service(&sent, DNS)
                })
                .find(|flow| flow.backend != first.backend)
                .expect("a flow to the other backend");
            let a = in_two_fragments(scenario, first.backend_datagram(&[b'a'; 2_000]));
            let b = in_two_fragments(scenario, second.backend_datagram(&[b'b'; 2_000]));
            expect_not_mixed(harness, Side::A, (&a, Side::Provider), (&b, Side::Provider));
        },
    ),
    (
        "each datagram of a sender gets an identification of its own",
        |harness, scenario| {
            let fragments = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
            let mut ids: Vec<u32> = (0..4)
                .map(|_| forwarded_id(harness, Side::A, Side::Provider, &fragments[0]))
                .collect();
            // Later fragments use the latest first fragment's identification.
            let tail = forwarded_id(harness, Side::A, Side::Provider, &fragments[1]);
            assert_eq!(Some(&tail), ids.last());
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 4, "{ids:?}");
        },
    ),
    ("identifications wrap around", |harness, scenario| {
        let fragments = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
        forwarded_id(harness, Side::A, Side::Provider, &fragments[0]);
        harness.set_identifications(IdentificationState {
            fragments_v4: u64::from(FRAGMENT_IDS) - 1,
            unfragmented_v4: u64::MAX,
            fragments_v6: u64::MAX,
        });
        let ids = [0; 2].map(|_| forwarded_id(harness, Side::A, Side::Provider, &fragments[0]));
        if scenario.provider_is_v4() {
            assert!(ids.iter().all(|id| *id < FRAGMENT_IDS), "{ids:?}");
            assert_eq!((ids[0] + 1) % FRAGMENT_IDS, ids[1]);
        } else {
            assert_eq!(ids[0].wrapping_add(1), ids[1]);
        }
    }),
    (
        "with every identification in use, a datagram's fragments are dropped",
        |harness, scenario| {
            let fragments = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
            forwarded_id(harness, Side::A, Side::Provider, &fragments[0]);
            harness.set_identifications(IdentificationState {
                fragments_v4: u64::MAX << 16,
                ..IdentificationState::default()
            });
            let client = (scenario.client_ip(), CLIENT_PORT + 1).into();
            let other = udp_datagram(client, scenario.dns_socket(), &[b'b'; 2_000])
                .split_into_fragments(1_400, 8);
            // Unfragmented datagrams are still forwarded.
            let whole = udp_datagram(client, scenario.dns_socket(), b"x");
            let sent = harness.send(Side::A, &whole);
            let spent = scenario.expect_forwarded_to_service(&sent, DNS);
            let first = harness.send(Side::A, &fragments[0]);
            if scenario.provider_is_v4() {
                first.expect_dropped(DropReason::FragmentIdExhausted);
            } else {
                first.expect_forwarded(Side::Provider);
                harness
                    .send(Side::A, &other[0])
                    .expect_forwarded(Side::Provider);
                harness
                    .send(Side::A, &other[1])
                    .expect_forwarded(Side::Provider);
            }
            // Later fragments of earlier datagrams are still forwarded.
            harness
                .send(Side::A, &fragments[1])
                .expect_forwarded(Side::Provider);
            assert_eq!(spent.nat.is_ipv4(), scenario.provider_is_v4());
        },
    ),
    (
        "a later fragment does not follow its flow to another backend",
        |harness, scenario| {
            let (flow, _) = open_udp_flow(harness, scenario);
            let fragments = fragmented_request(scenario, scenario.client_socket(), Side::A, b'a');
            harness
                .send(Side::A, &fragments[0])
                .expect_forwarded(Side::Provider);
            let gone = flow.backend.ip().to_string();
            harness.change_service(scenario.service, |spec| {
                let backends = spec["resources"][0]["backends"].as_array_mut();
                let other = |backend: &Value| backend["address"] != gone.as_str();
                backends.expect("a list").retain(other);
            });
            let (second, _) = open_udp_flow(harness, scenario);
            assert_ne!(second.backend, flow.backend);
            harness
                .send(Side::A, &fragments[1])
                .expect_dropped(DropReason::FragmentOrphan);
        },
    ),
    (
        "a packet that routers may fragment gets an identification, half-open and established",
        |harness, scenario| {
            if scenario.is_translated() || !scenario.is_v4() {
                return;
            }
            let (flow, _) = open_udp_flow(harness, scenario);
            let other = find_snat_sharer(harness, scenario, flow);
            let id = |harness: &mut DifferentialHarness, from: Side, to: Side, packet: &Packet| {
                harness.send(from, packet).expect_forwarded(to).ipv4().id
            };
            let chosen = u16::try_from(SENDER_ID).expect("small");
            let may = |packet: Packet| packet.edit_ipv4(|ip| (ip.fragment, ip.id) = (0, chosen));
            let there = may(scenario.client_datagram(b"question"));
            let others =
                udp_datagram(other.client, scenario.dns_socket(), b"question").sent_to(other.side);
            let mut ids = vec![
                id(harness, Side::A, Side::Provider, &there),
                id(harness, other.side, Side::Provider, &may(others)),
            ];
            let back = may(flow.backend_datagram(b"answer"));
            let answered = id(harness, Side::Provider, Side::A, &back);
            for _ in 0..2 {
                ids.push(id(harness, Side::A, Side::Provider, &there));
            }
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 4, "{ids:?}");
            assert!(ids.iter().all(|id| u32::from(*id) >= FRAGMENT_IDS));
            // The flow is established now.
            assert_ne!(id(harness, Side::Provider, Side::A, &back), answered);
            let must_not = |packet: Packet| packet.edit_ipv4(|ip| ip.id = chosen);
            let kept = must_not(scenario.client_datagram(b"question"));
            assert_eq!(id(harness, Side::A, Side::Provider, &kept), chosen);
        },
    ),
];

#[test]
fn fragments_of_two_senders_are_never_reassembled_together() {
    run_scenarios(CASES);
}

/// Two uses of an identification are separated by the lifetime of a fragment: 32 seconds in which later fragments are
/// forwarded, and 60 seconds that the receiver waits.
#[test]
fn identification_is_not_reused_within_the_reassembly_timeout() {
    const REASSEMBLY_TIMEOUT_NS: u64 = 93_300_000_000;
    with_harness(|harness| {
        let whole = udp((CLIENT, CLIENT_PORT), (ENDPOINT, DNS), &[b'a'; 2_000]);
        let frame = whole.split_into_fragments(1_400, SENDER_ID)[0].bytes(false);
        let ifindex = harness.ifindex(Side::A);
        let maps = harness.native_maps();
        let mut used: BTreeMap<u16, u64> = BTreeMap::new();
        let (mut allowed, mut refused) = (0, 0);
        // Allocates at the maximum rate, the burst first, for longer than an identification is reserved.
        while maps.extra_nanoseconds < 2 * REASSEMBLY_TIMEOUT_NS {
            let (verdict, after) = maps.process(ifindex, &frame);
            if let Verdict::Drop(Attribution { reason, .. }) = verdict {
                assert_eq!(reason, DropReason::FragmentIdExhausted);
                refused += 1;
                maps.extra_nanoseconds += 5_000_000;
                continue;
            }
            assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
            allowed += 1;
            let id = u16::from_be_bytes([after[18], after[19]]);
            if let Some(before) = used.insert(id, maps.extra_nanoseconds) {
                let apart = maps.extra_nanoseconds - before;
                assert!(
                    apart >= REASSEMBLY_TIMEOUT_NS,
                    "{id} again after {apart} ns"
                );
            }
        }
        assert!(allowed > 60_000 && refused > 1_000, "{allowed} {refused}");
    });
}
