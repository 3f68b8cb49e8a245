//! Places: a new flow takes a free one, then that of a closed, of an expired and of the oldest half-open flow. It
//! never takes that of an established flow that has not expired.

use gateway_common::{
    DropReason, Exit, ExitKind, Subprogram, V4,
    drop_reason::Attribution,
    flow::{Direction, Flow, PlaceState},
    maps::NO_CONNECTION,
    verdict::Verdict,
};
use tests::{
    datapath::differential::{
        CLIENT, Connection, DifferentialHarness, ENDPOINT, HTTPS, Side, tcp, with_sized_harness,
    },
    packet::flag::RST,
};

use super::{
    client_key, connect_native, crowded_ports, expect_native_drop, native_entries, pass_ticks,
    send_syn, states, timeouts,
};

/// Number of buckets of the tables.
const BUCKETS: u32 = 16;

/// Places in two buckets.
const CROWD: usize = 8;

/// Establishes flows until both buckets of the crowded ports are full. Returns the flows, and the SYN's port that found
/// no place.
fn fill(
    harness: &mut DifferentialHarness,
    ports: &mut impl Iterator<Item = u16>,
) -> (Vec<Connection>, u16) {
    let mut flows = Vec::new();
    loop {
        let port = ports.next().expect("a port");
        let before = states(harness);
        let syn = send_syn(harness, port, 1_000);
        if !matches!(syn.verdict, Verdict::Redirect(_)) {
            syn.expect_dropped(DropReason::FlowTableFull);
            assert_eq!(states(harness), before, "the dropped SYN left an entry");
            return (flows, port);
        }
        assert!(flows.len() < CROWD, "nine flows in eight places");
        flows.push(harness.connect(port));
    }
}

/// Expects that a flow is forwarded in both directions.
#[track_caller]
fn expect_alive(harness: &mut DifferentialHarness, flow: &Connection) {
    harness
        .send(Side::A, &flow.client_ack())
        .expect_forwarded(Side::Provider)
        .expect_sockets(flow.nat, flow.backend);
    harness
        .send(Side::Provider, &flow.backend_ack())
        .expect_forwarded(Side::A)
        .expect_sockets(flow.endpoint, flow.client);
}

#[test]
fn a_new_flow_never_takes_the_place_of_an_established_one() {
    with_sized_harness(0, BUCKETS, |harness| {
        let mut ports = crowded_ports(harness, BUCKETS);
        let (flows, _) = fill(harness, &mut ports);
        // Entries of the other direction may lie in the two buckets too.
        assert!(flows.len() > CROWD / 2, "{}", flows.len());
        for port in ports.take(20) {
            send_syn(harness, port, 1_000).expect_dropped(DropReason::FlowTableFull);
        }
        assert_eq!(states(harness), (0, flows.len(), 0));
        for flow in &flows {
            expect_alive(harness, flow);
        }
    });
}

#[test]
fn a_new_flow_takes_the_place_of_a_closed_flow_before_that_of_a_half_open_one() {
    with_sized_harness(0, BUCKETS, |harness| {
        let mut ports = crowded_ports(harness, BUCKETS);
        let (flows, refused) = fill(harness, &mut ports);
        let established = flows.len();
        let [first, second] = [&flows[0], &flows[1]];
        harness
            .send(Side::A, &first.client_ack().add_flags(RST))
            .expect_forwarded(Side::Provider);
        assert_eq!(states(harness), (0, established - 1, 1));
        send_syn(harness, refused, 1_000).expect_forwarded(Side::Provider);
        // The other entry of the closed flow is gone too.
        assert_eq!(states(harness), (1, established - 1, 0));
        harness
            .send(Side::Provider, &first.backend_ack())
            .expect_tcp_reset(DropReason::NoFlow);

        // With a closed flow the half-open one stays.
        harness
            .send(Side::Provider, &second.backend_ack().add_flags(RST))
            .expect_forwarded(Side::A);
        let next = ports.next().expect("a port");
        send_syn(harness, next, 1_000).expect_forwarded(Side::Provider);
        assert_eq!(states(harness), (2, established - 2, 0));
        for flow in &flows[2..] {
            expect_alive(harness, flow);
        }
    });
}

#[test]
fn a_new_flow_takes_the_place_of_a_half_open_one() {
    with_sized_harness(0, BUCKETS, |harness| {
        let mut ports = crowded_ports(harness, BUCKETS);
        let (flows, refused) = fill(harness, &mut ports);
        harness
            .send(Side::A, &flows[0].client_ack().add_flags(RST))
            .expect_forwarded(Side::Provider);
        let old = send_syn(harness, refused, 1_000);
        let (old_nat, old_backend) = old.expect_forwarded(Side::Provider).sockets();
        let usage = harness.usage("a/web");
        for port in ports.take(5) {
            send_syn(harness, port, 1_000).expect_forwarded(Side::Provider);
            assert_eq!(states(harness), (1, flows.len() - 1, 0));
        }
        let after = harness.usage("a/web");
        assert_eq!(
            (after.flows.get(), after.established.get()),
            (usage.flows.get(), usage.established.get())
        );
        let answer = tcp(old_backend, old_nat)
            .with_source_mac(tests::datapath::differential::BACKEND_MAC)
            .syn_ack(5_000, 1_001);
        harness
            .send(Side::Provider, &answer)
            .expect_tcp_reset(DropReason::NoFlow);
    });
}

#[test]
fn a_new_flow_takes_the_place_of_an_expired_flow_before_that_of_a_half_open_one() {
    with_sized_harness(0, BUCKETS, |harness| {
        let mut ports = crowded_ports(harness, BUCKETS);
        let mut flows = Vec::new();
        let refused = loop {
            let port = ports.next().expect("a port");
            let syn = tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1_000);
            let verdict = harness.send_native(Side::A, &syn);
            if !matches!(verdict, Verdict::Redirect(_)) {
                break port;
            }
            flows.push(connect_native(harness, port, 1_000));
        };
        // A half-open flow takes the place of a closed one.
        harness.run_native(Side::A, &flows[0].client_ack().add_flags(RST));
        let half_open = tcp((CLIENT, refused), (ENDPOINT, HTTPS)).syn(1_000);
        harness
            .run_native(Side::A, &half_open)
            .expect_forwarded(Side::Provider);
        // All flows but one send; the half-open one is idle for as long, and has not expired.
        let ticks = timeouts(harness).tcp_established;
        pass_ticks(harness, ticks - 1);
        for flow in &flows[2..] {
            harness.run_native(Side::A, &flow.client_ack());
        }
        harness.run_native(Side::A, &half_open);
        pass_ticks(harness, 1);
        let next = tcp((CLIENT, ports.next().expect("a port")), (ENDPOINT, HTTPS)).syn(1_000);
        harness
            .run_native(Side::A, &next)
            .expect_forwarded(Side::Provider);
        let maps = harness.native_maps();
        let mut left = maps
            .flows_v4
            .entries()
            .into_iter()
            .filter(|(_, _, flow)| flow.direction() == Direction::ToService)
            .map(|(_, key, _)| key.ports.source().get());
        assert!(left.all(|port| port != flows[1].client.1));
        assert_eq!(native_entries(harness, PlaceState::HalfOpen), 4);
        assert_eq!(
            native_entries(harness, PlaceState::Established),
            2 * (flows.len() - 2)
        );
    });
}

#[test]
fn a_new_flow_takes_the_place_of_the_oldest_half_open_one() {
    with_sized_harness(0, 1, |harness| {
        // One bucket of four places: two flows.
        let syn = |port| tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1_000);
        let mut open = |port| {
            pass_ticks(harness, 1);
            harness
                .run_native(Side::A, &syn(port))
                .expect_forwarded(Side::Provider);
            let mut ports: Vec<u16> = harness
                .native_maps()
                .flows_v4
                .entries()
                .iter()
                .filter(|(_, _, flow)| flow.direction() == Direction::ToService)
                .map(|(_, key, _)| key.ports.source().get())
                .collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(open(1_001), [1_001]);
        assert_eq!(open(1_002), [1_001, 1_002]);
        assert_eq!(open(1_003), [1_002, 1_003]);
        assert_eq!(open(1_004), [1_003, 1_004]);
        assert_eq!(open(1_005), [1_004, 1_005]);
    });
}

#[test]
fn a_new_flow_does_not_replace_its_own_other_entry() {
    with_sized_harness(0, 1, |harness| {
        // One place is left of four.
        let now = harness.native_maps().now;
        for port in 1..=3 {
            let mut flow = Flow::<V4> {
                last_seen_and_scale: now.0,
                ..Flow::default()
            };
            flow.set_direction(Direction::ToService, 0, false);
            let key = client_key(harness, port);
            let maps = harness.native_maps();
            maps.flows_v4.set(&key, &flow, PlaceState::Established);
        }
        let verdict = harness.send_native(
            Side::A,
            &tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1_000),
        );
        expect_native_drop(verdict, DropReason::FlowTableFull);
        assert_eq!(native_entries(harness, PlaceState::HalfOpen), 0);
        assert_eq!(native_entries(harness, PlaceState::Established), 3);
    });
}

#[test]
fn a_packet_whose_flow_was_replaced_since_its_look_up_is_dropped() {
    with_sized_harness(0, 1, |harness| {
        let connection = connect_native(harness, 40_000, 1_000);
        let key = client_key(harness, 40_000);
        let frame = connection.client_ack().bytes(false);
        let ifindex = harness.ifindex(Side::A);
        let maps = harness.native_maps();
        let found = maps.flows_v4.get(&key).expect("the flow");
        let argument = Exit::forward(found.handle()).to_bits();
        let forward = |maps: &mut gateway_common::sim::SimMaps| -> ExitKind {
            maps.run_subprogram(Subprogram::ForwardV4, argument, ifindex, &frame)
                .kind()
        };
        assert!(matches!(
            forward(maps),
            ExitKind::Done(Verdict::Redirect(_))
        ));
        let race = Attribution::new(DropReason::ConfigRace, NO_CONNECTION);
        maps.flows_v4.remove(&key);
        assert_eq!(forward(maps), ExitKind::Done(Verdict::Drop(race)));
        // The same key in the same place is another entry.
        maps.flows_v4.clear();
        maps.flow_table_usage
            .set(0, gateway_common::flow::FlowTableUsage::default());
        connect_native(harness, 40_000, 1_000);
        let maps = harness.native_maps();
        let again = maps.flows_v4.get(&key).expect("the flow");
        assert_eq!(again.index, found.index);
        assert_eq!(forward(maps), ExitKind::Done(Verdict::Drop(race)));
    });
}
