//! Cost of a packet, by its path through the data path.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Barrier,
    thread,
};

use gateway::bpf::maps;
use gateway_common::{flow::hash::derive_hash_keys, maps::name};
use serde::Serialize;
use tests::datapath::differential::{
    BACKEND_MAC, CLIENT, CLIENT_MAC, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT, ENDPOINT_V6,
    HTTPS, PENDING, SEED, Side, arp_request, icmp, tcp, tcp_v6, udp, with_sized_harness,
};

use tests::{bpf::syscalls::run, packet::Packet};

use crate::{
    bare_flow_table::bare_flow_table,
    baselines::pin_to_cpu,
    flows::{MAX_FLOWS, fill},
    kernel_hash::KernelHash,
    wrapper::{Vary, Wrapper, XDP_PASS, bare_v4, bare_v6, headers_v4, pass_program},
};

/// `XDP_ABORTED`.
const XDP_ABORTED: u32 = 0;
/// `XDP_DROP`.
const XDP_DROP: u32 = 1;
/// `XDP_REDIRECT`.
const XDP_REDIRECT: u32 = 4;

/// The cost of a path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Name of the path.
    pub(crate) name: &'static str,
    /// Nanoseconds a packet, without the wrapper.
    pub(crate) nanoseconds: f64,
}

/// The program that processes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Gateway,
    /// The bare program over the kernel's hash map.
    BareV4,
    BareV6,
    /// The bare program over the flow table.
    BareFlowTable,
    Headers,
}

/// A measured path.
struct Case {
    name: &'static str,
    program: Program,
    side: Side,
    frame: Vec<u8>,
    vary: Vary,
    expected: u32,
    /// Maximum of packets in a run, for paths that open flows, which are removed after each run.
    max_packets: Option<u32>,
    /// True if packets are rejected until the limit of rejects is reached. The cost is that of a packet beyond the
    /// limit.
    refused: bool,
}

/// A case that is set up.
struct Prepared {
    case: Case,
    wrapper: Wrapper,
    best: u32,
    best_nothing: u32,
}

/// Packets in a run.
const REPEAT: u32 = 200_000;
/// Rounds over all paths. The minimum of each counts, which is the time without interference.
const ROUNDS: u32 = 15;
/// New flows in a run. They must fit into the table.
const NEW_FLOWS: u32 = 20_000;

/// Number of flows of the many-flows cases.
const MANY_FLOWS: u32 = 1 << 17;

/// Number of flows that the flow table is made for. With [`MAX_FLOWS`] two fifths of the places are in use, so that each
/// flow has one.
const TABLE_SIZE: u32 = MAX_FLOWS / 4 * 5;

/// Measures all paths, or those with a text in their name.
pub(crate) fn measure(rounds: Option<u32>, case_filter: Option<String>) -> Vec<Cost> {
    with_sized_harness(1, TABLE_SIZE, move |harness| {
        let rounds = rounds.unwrap_or(ROUNDS);
        let mut costs =
            measure_few_flows(harness, rounds, case_filter.as_deref()).expect("the measurement");
        if case_filter.is_some() {
            return costs;
        }
        costs.extend(measure_two_cpus(harness, rounds).expect("the measurement"));
        for flows in [MANY_FLOWS, MAX_FLOWS] {
            costs.extend(measure_many_flows(harness, rounds, flows).expect("the measurement"));
        }
        costs
    })
}

/// Pads a frame, so that all of its headers can be restored in steps of eight bytes.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() < 80 {
        frame.resize(80, 0);
    }
    frame
}

fn measure_few_flows(
    harness: &mut DifferentialHarness,
    rounds: u32,
    only: Option<&str>,
) -> io::Result<Vec<Cost>> {
    let payload = &[b'x'; 26];
    let connection = harness.connect(40_000);
    let to_service = connection.client_ack().with_payload(payload).bytes(false);
    let to_consumer = connection.backend_ack().with_payload(payload).bytes(false);

    let (client, endpoint) = ((CLIENT, 40_001), (ENDPOINT, DNS));
    let question = harness.send(Side::A, &udp(client, endpoint, payload));
    let (nat, server) = question.expect_forwarded(Side::Provider).sockets();
    for _ in 0..2 {
        let answer = udp(server, nat, payload)
            .with_source_mac(BACKEND_MAC)
            .sent_to(Side::Provider);
        harness
            .send(Side::Provider, &answer)
            .expect_forwarded(Side::A);
        harness
            .send(Side::A, &udp(client, endpoint, payload))
            .expect_forwarded(Side::Provider);
    }
    let datagram = udp(client, endpoint, payload).bytes(false);

    let (client, endpoint) = ((CLIENT_V6, 40_000), (ENDPOINT_V6, HTTPS));
    let syn = harness.send(Side::A, &tcp_v6(client, endpoint).syn(1_000));
    let (nat, server) = syn.expect_forwarded(Side::Provider).sockets_v6();
    let answer = tcp_v6(server, nat)
        .with_source_mac(BACKEND_MAC)
        .syn_ack(5_000, 1_001);
    harness
        .send(Side::Provider, &answer)
        .expect_forwarded(Side::A);
    let ack = tcp_v6(client, endpoint).ack(1_001, 5_001);
    harness.send(Side::A, &ack).expect_forwarded(Side::Provider);
    let v6 = ack.with_payload(payload).bytes(false);

    // B's network has no NAT46 flows, which would cost a second look-up.
    let of_b = |packet: Packet| packet.sent_to(Side::B).bytes(false);
    let unapproved = of_b(tcp((CLIENT, 4_000), (PENDING, HTTPS)).syn(1));
    let stranger = "10.0.0.222".parse().expect("an address");
    let stranger = of_b(tcp((CLIENT, 4_000), (stranger, HTTPS)).ack(1, 1));
    let request = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)).bytes(false);
    let echo = icmp(CLIENT, ENDPOINT, 8, 0, &[0; 32]).bytes(false);

    let case = |name, program, side, frame: &[u8], expected| Case {
        name,
        program,
        side,
        frame: padded(frame.to_vec()),
        vary: Vary::Nothing,
        expected,
        max_packets: None,
        refused: false,
    };
    let gateway = Program::Gateway;
    let mut denied = case("denied", gateway, Side::B, &unapproved, XDP_DROP);
    denied.refused = true;
    let bare = |name, program| case(name, program, Side::A, &to_service, XDP_REDIRECT);
    let mut cases = vec![
        bare("bare program, IPv4", Program::BareV4),
        bare("bare program over the flow table", Program::BareFlowTable),
        case(
            "headers only",
            Program::Headers,
            Side::B,
            &stranger,
            XDP_DROP,
        ),
        case(
            "bare program, IPv6",
            Program::BareV6,
            Side::A,
            &v6,
            XDP_REDIRECT,
        ),
        case(
            "established, TCP",
            gateway,
            Side::A,
            &to_service,
            XDP_REDIRECT,
        ),
        case(
            "reply direction, TCP",
            gateway,
            Side::Provider,
            &to_consumer,
            XDP_REDIRECT,
        ),
        case(
            "established, UDP",
            gateway,
            Side::A,
            &datagram,
            XDP_REDIRECT,
        ),
        case(
            "established, TCP over IPv6",
            gateway,
            Side::A,
            &v6,
            XDP_REDIRECT,
        ),
        opening("new flow, TCP"),
        case("ARP reply", gateway, Side::A, &request, XDP_REDIRECT),
        case("echo reply", gateway, Side::A, &echo, XDP_REDIRECT),
        case(
            "no endpoint, isolated",
            gateway,
            Side::B,
            &stranger,
            XDP_DROP,
        ),
        case("not attached", gateway, Side::Host, &to_service, XDP_PASS),
        denied,
    ];
    cases.retain(|case| only.is_none_or(|only| case.name.contains(only)));
    run_cases(harness, cases, rounds)
}

/// Returns a case of B's packets, each of which opens a flow.
fn opening(name: &'static str) -> Case {
    let syn = tcp((CLIENT, 0), (ENDPOINT, HTTPS)).syn(1);
    Case {
        name,
        program: Program::Gateway,
        side: Side::B,
        frame: padded(syn.sent_to(Side::B).bytes(false)),
        vary: Vary::Always,
        expected: XDP_REDIRECT,
        max_packets: Some(NEW_FLOWS),
        refused: false,
    }
}

/// Measures packets of many flows, each packet of another one.
fn measure_many_flows(
    harness: &mut DifferentialHarness,
    rounds: u32,
    flows: u32,
) -> io::Result<Vec<Cost>> {
    let lost = fill(harness, flows, maps::now());
    assert_eq!(lost, 0, "flows without a place");
    let frame = harness
        .connect(40_001)
        .client_ack()
        .with_payload(&[b'x'; 26])
        .bytes(false);
    let case = |program, name| Case {
        name,
        program,
        side: Side::A,
        frame: padded(frame.clone()),
        vary: Vary::Flows(flows),
        expected: XDP_REDIRECT,
        max_packets: None,
        refused: false,
    };
    let [of_bare, of_flow_table, of_gateway, new_flow] = match flows {
        MANY_FLOWS => [
            "bare program, 1 of 131,072 flows",
            "bare program over the flow table, 1 of 131,072",
            "established, 1 of 131,072 flows",
            "new flow beside 131,072 flows",
        ],
        _ => [
            "bare program, 1 of 524,288 flows",
            "bare program over the flow table, 1 of 524,288",
            "established, 1 of 524,288 flows",
            "new flow beside 524,288 flows",
        ],
    };
    let cases = vec![
        case(Program::BareV4, of_bare),
        case(Program::BareFlowTable, of_flow_table),
        case(Program::Gateway, of_gateway),
        opening(new_flow),
    ];
    let costs = run_cases(harness, cases, rounds);
    harness.reset();
    costs
}

/// Measures established packets on two processors at once: of one flow each, and of the same flow.
fn measure_two_cpus(harness: &mut DifferentialHarness, rounds: u32) -> io::Result<Vec<Cost>> {
    let nothing = pass_program()?;
    let of_flow = |harness: &mut DifferentialHarness, port| {
        let connection = harness.connect(port);
        padded(
            connection
                .client_ack()
                .with_payload(&[b'x'; 26])
                .bytes(false),
        )
    };
    let frames = [of_flow(harness, 40_000), of_flow(harness, 40_001)];
    let wrapper = |frame: &[u8]| Wrapper::new(frame, 80, Vary::Nothing);
    let (program, ifindex) = (harness.program(), harness.ifindex(Side::A));
    // Index of the frame, by processor.
    let at_once = |target: BorrowedFd<'_>, flows: &[usize]| -> io::Result<u32> {
        let begin = Barrier::new(flows.len());
        thread::scope(|scope| {
            let mut running = Vec::new();
            for (processor, flow) in flows.iter().enumerate() {
                let (frame, begin) = (&frames[*flow], &begin);
                let wrapper = wrapper(frame)?;
                running.push(scope.spawn(move || {
                    pin_to_cpu(processor);
                    let wrapped = wrapper.calling(target)?;
                    begin.wait();
                    run(wrapped, ifindex, frame, REPEAT * 4).map(|(_, took)| took)
                }));
            }
            let mut slowest = 0;
            for one in running {
                slowest = slowest.max(one.join().expect("a measurement")?);
            }
            Ok(slowest)
        })
    };
    let mut costs = Vec::new();
    for (name, flows) in [
        ("established, one processor", &[0][..]),
        ("established, two processors, two flows", &[0, 1]),
        ("established, two processors, one flow", &[0, 0]),
    ] {
        let (mut best, mut best_nothing) = (u32::MAX, u32::MAX);
        for _ in 0..rounds {
            best_nothing = best_nothing.min(at_once(nothing.as_fd(), flows)?);
            best = best.min(at_once(program, flows)?);
        }
        costs.push(Cost {
            name,
            nanoseconds: f64::from(best) - f64::from(best_nothing),
        });
    }
    harness.reset();
    Ok(costs)
}

fn run_cases(
    harness: &mut DifferentialHarness,
    cases: Vec<Case>,
    rounds: u32,
) -> io::Result<Vec<Cost>> {
    let nothing = pass_program()?;
    let network = |side| harness.contents().attachments[&harness.ifindex(side)].network;
    let devices = harness.map(name::TX_PORTS);
    let headers = headers_v4()?;
    let hash = KernelHash::copy_of(harness)?;
    let (devices, network) = (devices.as_fd(), network(Side::A));
    let bare: [OwnedFd; 3] = [
        bare_v4(hash.v4.as_fd(), devices, network)?,
        bare_v6(hash.v6.as_fd(), devices, network)?,
        bare_flow_table(
            harness.map(name::FLOWS_V4).as_fd(),
            TABLE_SIZE,
            &derive_hash_keys(SEED),
            devices,
            network,
        )?,
    ];
    let mut prepared = Vec::new();
    for case in cases {
        let wrapper = Wrapper::new(&case.frame, 80.min(case.frame.len() / 8 * 8), case.vary)?;
        prepared.push(Prepared {
            case,
            wrapper,
            best: u32::MAX,
            best_nothing: u32::MAX,
        });
    }
    for _ in 0..rounds {
        for one in &mut prepared {
            let case = &one.case;
            let program: BorrowedFd<'_> = match case.program {
                Program::Gateway => harness.program(),
                Program::BareV4 => bare[0].as_fd(),
                Program::BareV6 => bare[1].as_fd(),
                Program::BareFlowTable => bare[2].as_fd(),
                Program::Headers => headers.as_fd(),
            };
            let repeat = case.max_packets.unwrap_or(REPEAT);
            let ifindex = harness.ifindex(case.side);
            let wrapped = one.wrapper.calling(nothing.as_fd())?;
            let (_, empty) = run(wrapped, ifindex, &case.frame, repeat)?;
            while case.refused && run(program, ifindex, &case.frame, 1)?.0 != XDP_DROP {}
            let before = verdict_counters(harness);
            let wrapped = one.wrapper.calling(program)?;
            let (result, took) = run(wrapped, ifindex, &case.frame, repeat)?;
            if case.refused && result == XDP_ABORTED {
                // The limit of rejects was reset meanwhile, and the last packet became a reject, which is shorter.
                continue;
            }
            assert_eq!(result, case.expected, "{}", case.name);
            if case.program == Program::Gateway {
                let counted = verdict_counters(harness)[result as usize] - before[result as usize];
                assert_eq!(counted, u64::from(repeat), "{}", case.name);
            }
            one.best = one.best.min(took);
            one.best_nothing = one.best_nothing.min(empty);
            if case.max_packets.is_some() {
                // Each packet has opened a flow, which has two entries. Few have taken the places of others.
                let opened = harness.clear_half_open() / 2;
                assert!(opened >= repeat - repeat / 1_000, "{opened}: {}", case.name);
            }
        }
    }
    Ok(prepared
        .into_iter()
        .map(|one| Cost {
            name: one.case.name,
            nanoseconds: f64::from(one.best) - f64::from(one.best_nothing),
        })
        .collect())
}

/// Returns the numbers of packets by XDP action.
fn verdict_counters(harness: &DifferentialHarness) -> [u64; 5] {
    use gateway_common::maps::Statistic;
    let mut decided = [0; 5];
    let drops = harness.maps().drops().expect("the counters");
    decided[XDP_DROP as usize] = drops.values().sum();
    for (statistic, count) in harness.maps().statistics().expect("the counters") {
        match statistic {
            Statistic::PassedToHost => decided[XDP_PASS as usize] += count,
            Statistic::Forwarded | Statistic::LocalReplies => {
                decided[XDP_REDIRECT as usize] += count
            }
            _ => {}
        }
    }
    decided
}
