//! Source ports of closed flows: when they are used again.

use gateway_common::{
    Be16, Be32, DropReason, Family, V4, V6,
    flow::{CLOSED_TICKS, Direction, Flow, FlowKey, NetworkProto, PlaceState, TcpFlagsSeen},
    packet::PortPair,
    pipeline::MIN_SOURCE_PORT,
    sim::SimFlowTable,
};
use tests::{
    datapath::{
        differential::{
            ALL_PORTS_ENDPOINT, BACKENDS, CLIENT, DifferentialHarness, SEED, Side, tcp,
            with_sized_harness,
        },
        scenario::Scenario,
    },
    packet::flag::{ACK, FIN, RST},
};

use super::{expect_native_drop, pass_ticks};
use crate::{ScenarioCase, run_scenarios};

/// Establishes a connection, and closes it by FINs.
#[track_caller]
fn connect_and_close(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
) -> tests::datapath::scenario::ProviderFlow {
    let flow = scenario.connect(harness);
    harness.send(Side::A, &scenario.client_ack().add_flags(FIN));
    let fin = flow.backend_segment().with_flags(FIN | ACK, 5_001, 1_002);
    harness.send(Side::Provider, &fin);
    harness.send(Side::A, &scenario.client_segment().ack(1_002, 5_002));
    assert_eq!(harness.flows(PlaceState::Closed), 1);
    flow
}

const CASES: &[ScenarioCase] = &[
    (
        "a SYN beyond the closed connection gets its port at once (RFC 6191)",
        |harness, scenario| {
            let flow = connect_and_close(harness, scenario);
            // The server has acknowledged everything before 1,002.
            for sequence in [1_003, 1_002 + (1 << 31) - 1] {
                let syn = scenario.client_segment().syn(sequence);
                let out = harness.send(Side::A, &syn);
                let next = scenario.expect_forwarded_to_service(&out, 8_443);
                assert_eq!(next, flow);
                let reset = next
                    .backend_segment()
                    .with_flags(RST | ACK, 0, sequence + 1);
                harness.send(Side::Provider, &reset);
                harness.reset();
                assert_eq!(connect_and_close(harness, scenario), flow);
            }
        },
    ),
    (
        "a SYN that is not beyond the closed connection gets another port",
        |harness, scenario| {
            for sequence in [0, 1_000, 1_002, 1_002 + (1 << 31), u32::MAX] {
                harness.reset();
                let flow = connect_and_close(harness, scenario);
                let syn = scenario.client_segment().syn(sequence);
                let out = harness.send(Side::A, &syn);
                let next = scenario.expect_forwarded_to_service(&out, 8_443);
                assert_eq!(next.backend, flow.backend);
                assert_ne!(next.nat, flow.nat, "{sequence}");
                assert_eq!(next.nat.ip(), flow.nat.ip());
            }
        },
    ),
    (
        "a port is used again by any SYN 60 s after the close",
        |harness, scenario| {
            let flow = connect_and_close(harness, scenario);
            let syn = scenario.client_segment().syn(1_000);
            pass_ticks(harness, CLOSED_TICKS);
            let out = harness.run_native(Side::A, &syn);
            assert_eq!(scenario.expect_forwarded_to_service(&out, 8_443), flow);
        },
    ),
    (
        "a port is not used again 40 s after the close",
        |harness, scenario| {
            let flow = connect_and_close(harness, scenario);
            let syn = scenario.client_segment().syn(1_000);
            // Far from the limit, since the clock goes on while a slow machine processes the packets.
            pass_ticks(harness, CLOSED_TICKS - 20);
            let out = harness.run_native(Side::A, &syn);
            let next = scenario.expect_forwarded_to_service(&out, 8_443);
            assert_ne!(next.nat, flow.nat);
        },
    ),
    (
        "a UDP flow keeps its port: it is never closed",
        |harness, scenario| {
            let question = scenario.client_datagram(b"question");
            let out = harness.send(Side::A, &question);
            let flow = scenario.expect_forwarded_to_service(&out, 53);
            for _ in 0..2 {
                harness.send(Side::Provider, &flow.backend_datagram(b"answer"));
                let out = harness.send(Side::A, &question);
                assert_eq!(scenario.expect_forwarded_to_service(&out, 53), flow);
            }
            assert_eq!(super::states(harness), (0, 1, 0));
        },
    ),
];

#[test]
fn ports_of_closed_flows_are_used_again() {
    run_scenarios(CASES);
}

/// Occupies all source ports of the service on every port, towards TCP port 80 of its backend, with entries of this
/// state. `last_seen` returns the ticks that the entry of a port has been idle.
fn occupy(harness: &mut DifferentialHarness, state: PlaceState, idle: impl Fn(u16) -> u32) {
    const LARGE_TABLE: u32 = 1 << 16;
    let attachments = &harness.contents().attachments;
    let network = attachments[&harness.ifindex(Side::Provider)].network;
    let maps = harness.native_maps();
    maps.flows_v4 = SimFlowTable::new(LARGE_TABLE, SEED);
    maps.flow_table_size = LARGE_TABLE.into();
    for port in MIN_SOURCE_PORT..=u16::MAX {
        let mut flow = Flow::<V4> {
            last_seen_and_scale: maps.now.0 - idle(port),
            ..Flow::default()
        };
        flow.set_direction(Direction::ToConsumer, 0, false);
        maps.flows_v4.set(&reverse_key(network, port), &flow, state);
    }
}

/// Returns the key of the backend's segments to a source port of the service on every port.
fn reverse_key(network: u32, port: u16) -> FlowKey<V4> {
    let nat: std::net::Ipv4Addr = [10, 1, 0, 112].into();
    FlowKey {
        network_proto: NetworkProto::new(network, 6),
        source: BACKENDS[0].into(),
        destination: nat.into(),
        ports: PortPair::new(Be16::new(80), Be16::new(port)),
    }
}

#[test]
fn the_port_that_was_closed_first_is_used_again_when_no_other_is_free() {
    with_sized_harness(0, 16, |harness| {
        const OLDEST: u32 = 40;
        // The machine may have started just now.
        pass_ticks(harness, OLDEST);
        let idle = |port: u16| u32::from(port).wrapping_mul(2_654_435_761) >> 16 & 31;
        occupy(harness, PlaceState::Closed, |port| {
            let idle = idle(port);
            if idle == 31 { OLDEST } else { idle }
        });
        for port in 10_000..10_050 {
            let syn = tcp((CLIENT, port), (ALL_PORTS_ENDPOINT, 80)).syn(1_000);
            let out = harness.run_native(Side::A, &syn);
            let ((_, source), _) = out.expect_forwarded(Side::Provider).sockets();
            assert_eq!(idle(source), 31, "{source}");
        }
    });
}

#[test]
fn the_ports_of_open_flows_are_never_used_again() {
    with_sized_harness(0, 16, |harness| {
        for state in [PlaceState::HalfOpen, PlaceState::Established] {
            occupy(harness, state, |_| 0);
            let before = harness.native_maps().flows_v4.count();
            for port in 10_000..10_020 {
                let syn = tcp((CLIENT, port), (ALL_PORTS_ENDPOINT, 80)).syn(1_000);
                let verdict = harness.send_native(Side::A, &syn);
                expect_native_drop(verdict, DropReason::SourceNatExhausted);
            }
            assert_eq!(harness.native_maps().flows_v4.count(), before);
        }
    });
}

/// Opens a flow on the native platform, and returns the key of its reverse entry in the table of `F`.
#[track_caller]
fn open_native<F: Family>(
    harness: &mut DifferentialHarness,
    scenario: Scenario,
    entries: impl Fn(&mut DifferentialHarness) -> Vec<gateway_common::sim::SimEntry<F>>,
) -> FlowKey<F> {
    let out = harness.run_native(Side::A, &scenario.client_segment().syn(1_000));
    scenario.expect_forwarded_to_service(&out, 8_443);
    let entries = entries(harness);
    let mut reverse = entries
        .into_iter()
        .filter(|(_, _, flow)| flow.direction() == Direction::ToConsumer);
    let (_, key, _) = reverse.next().expect("the reverse entry");
    key
}

/// Returns an entry towards the consumer whose newest acknowledgement number is this.
fn acknowledged<F: Family>(harness: &mut DifferentialHarness, number: u32) -> Flow<F> {
    let mut flow = Flow::<F> {
        last_seen_and_scale: harness.native_maps().now.0,
        last_ack: Be32::new(number),
        ..Flow::default()
    };
    flow.set_direction(Direction::ToConsumer, 0, false);
    flow
}

/// Sets the state and the flags of an entry.
fn set_state<F: Family>(table: &SimFlowTable<F>, key: &FlowKey<F>, state: PlaceState) {
    let mut found = table.get(key).expect("the entry");
    let seen = TcpFlagsSeen::SYN.union(TcpFlagsSeen::ACK);
    let _before = found.update(|control| Some(control.with_state(state).with_flags(seen)));
}

#[test]
fn a_closed_flow_of_the_other_family_keeps_its_port_of_a_shared_pool() {
    with_sized_harness(0, 64, |harness| {
        // NAT64 flows and IPv4 flows share the addresses of the web service.
        let nat64 = Scenario::ALL[3];
        let entries = |harness: &mut DifferentialHarness| harness.native_maps().flows_v6.entries();
        let key = open_native::<V6>(harness, nat64, entries);
        let v4 = |address| V6::to_mapped(address).to_v4().expect("IPv4");
        let key_v4 = FlowKey::<V4> {
            network_proto: key.network_proto,
            source: v4(key.source),
            destination: v4(key.destination),
            ports: key.ports,
        };
        for (state, newest, keeps_port) in [
            (PlaceState::Closed, 1_000, true),
            (PlaceState::Closed, 1 << 31, true),
            (PlaceState::Closed, 999, false),
            (PlaceState::Established, 999, true),
        ] {
            let flow = acknowledged::<V4>(harness, newest);
            let maps = harness.native_maps();
            maps.flows_v4.clear();
            maps.flows_v6.clear();
            maps.flows_v4.set(&key_v4, &flow, PlaceState::HalfOpen);
            set_state(&maps.flows_v4, &key_v4, state);
            let next = open_native::<V6>(harness, nat64, entries);
            assert_eq!(next != key, keeps_port, "{state:?} {newest}");
            let is_left = harness.native_maps().flows_v4.get(&key_v4).is_some();
            assert_eq!(is_left, keeps_port, "{state:?} {newest}");
        }
    });
}

#[test]
fn a_closed_nat64_flow_keeps_its_port_from_flows_of_ipv4() {
    with_sized_harness(0, 64, |harness| {
        let v4 = Scenario::ALL[0];
        let entries = |harness: &mut DifferentialHarness| harness.native_maps().flows_v4.entries();
        let key = open_native::<V4>(harness, v4, entries);
        let key_v6 = key.to_mapped();
        for (state, newest, keeps_port) in [
            (PlaceState::Closed, 1_000, true),
            (PlaceState::Closed, 999, false),
            (PlaceState::Established, 999, true),
        ] {
            let flow = acknowledged::<V6>(harness, newest);
            let maps = harness.native_maps();
            maps.flows_v4.clear();
            maps.flows_v6.clear();
            maps.flows_v6.set(&key_v6, &flow, PlaceState::HalfOpen);
            set_state(&maps.flows_v6, &key_v6, state);
            let next = open_native::<V4>(harness, v4, entries);
            assert_eq!(next != key, keeps_port, "{state:?} {newest}");
        }
    });
}
