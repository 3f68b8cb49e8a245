//! The model test: random decisions of providers and consumers, random changes of the host, and random packets,
//! each through both platforms.
//!
//! A model that knows only the approvals holds three invariants. No packet is forwarded without an approval in force
//! (revocation). No packet is forwarded between networks without a connection (isolation). A packet that is sent
//! twice is forwarded alike (determinism).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use gateway::model::Decision;
use gateway_common::Verdict;
use serde_json::json;
use tests::{
    datapath::differential::{BACKEND_MAC, BACKENDS, DifferentialHarness, Side, with_harness},
    packet::{
        Content, Packet, Transport,
        builders::{ip_packet, udp_datagram},
        read::ip_parts,
    },
    random::Random,
};

/// An endpoint of the model.
#[derive(Clone, Debug)]
struct Endpoint {
    name: &'static str,
    side: Side,
    address: IpAddr,
    service: &'static str,
    /// Number of the approval in force.
    approval: Option<u32>,
}

/// Endpoint and approval that a flow of the provider's side belongs to.
#[derive(Clone, Copy, Debug)]
struct ModelFlow {
    endpoint: usize,
    approval: u32,
    client: SocketAddr,
    destination: SocketAddr,
}

/// Sockets of a flow in the provider's network, and its protocol.
type FiveTuple = (SocketAddr, SocketAddr, u8);

struct Model {
    endpoints: Vec<Endpoint>,
    approvals: u32,
    flows: HashMap<FiveTuple, ModelFlow>,
    /// Flows in order of creation, to select from.
    order: Vec<FiveTuple>,
    backends: BTreeMap<&'static str, BTreeSet<IpAddr>>,
    forwarded: usize,
    rejected: usize,
}

/// SNAT addresses by service.
const NAT: &[(&str, &str)] = &[
    ("web", "10.1.0."),
    ("every", "10.1.0.112"),
    ("web6", "fd00:1::4"),
];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the packet without its identification, which differs between packets that routers may fragment.
fn without_id(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    if let Content::Ipv4(ip) = &mut packet.content {
        ip.id = 0;
    }
    packet
}

impl Model {
    fn new() -> Self {
        let endpoint = |name, side, text, service, approved: bool| Endpoint {
            name,
            side,
            address: address(text),
            service,
            approval: approved.then_some(0),
        };
        let endpoints = vec![
            endpoint("a/web", Side::A, "10.0.0.100", "web", true),
            endpoint("b/web", Side::B, "10.0.0.100", "web", true),
            endpoint("a/pending", Side::A, "10.0.0.101", "web", false),
            endpoint("a/every", Side::A, "10.0.0.104", "every", true),
            endpoint("a/web6", Side::A, "fd00::100", "web6", true),
            endpoint("b/web6", Side::B, "fd00::100", "web6", true),
            endpoint("a/pending6", Side::A, "fd00::101", "web6", false),
            endpoint("a/four-to-six", Side::A, "10.0.0.105", "web6", true),
            endpoint("a/six-to-four", Side::A, "fd00::105", "web", true),
        ];
        let backend_addresses = BACKENDS.map(IpAddr::V4);
        let backends = BTreeMap::from([
            ("web", BTreeSet::from(backend_addresses)),
            ("every", BTreeSet::from([backend_addresses[0]])),
            (
                "web6",
                BTreeSet::from([address("fd00:1::10"), address("fd00:1::11")]),
            ),
        ]);
        Self {
            endpoints,
            approvals: 0,
            flows: HashMap::new(),
            order: Vec::new(),
            backends,
            forwarded: 0,
            rejected: 0,
        }
    }

    /// Makes a random decision, or changes a service's backends.
    fn decide(&mut self, harness: &mut DifferentialHarness, random: &mut Random) {
        if random.one_in(4) {
            let one = json!([{ "address": BACKENDS[random.below(2)] }]);
            let two = json!([{ "address": BACKENDS[0] }, { "address": BACKENDS[1] }]);
            let backends = if random.one_in(2) { one } else { two };
            harness.set_backends(&backends);
            let list = backends.as_array().expect("a list");
            let addresses = list
                .iter()
                .map(|b| address(b["address"].as_str().expect("text")));
            self.backends.insert("web", addresses.collect());
            return;
        }
        let endpoint = random.below(self.endpoints.len());
        let endpoint = &mut self.endpoints[endpoint];
        if endpoint.approval.is_some() {
            harness.decide(endpoint.name, Decision::Reject);
            endpoint.approval = None;
        } else {
            harness.decide(endpoint.name, Decision::Approve);
            self.approvals += 1;
            endpoint.approval = Some(self.approvals);
        }
    }

    /// Sends a packet from a consumer's client to an address that may be an endpoint's.
    fn consumer_sends(&mut self, harness: &mut DifferentialHarness, random: &mut Random) {
        let number = random.below(self.endpoints.len());
        let target = self.endpoints[number].clone();
        // Sometimes the wrong consumer sends.
        let side = match (random.one_in(5), target.side) {
            (true, Side::A) => Side::B,
            (true, _) => Side::A,
            (false, side) => side,
        };
        let host = u8::try_from(2 + random.below(4)).expect("few");
        let client: IpAddr = match target.address {
            IpAddr::V4(_) => [10, 0, 0, host].into(),
            IpAddr::V6(_) => address(&format!("fd00::{host:x}")),
        };
        let client = SocketAddr::new(
            client,
            u16::try_from(40_000 + random.below(6)).expect("a port"),
        );
        let port = *random.pick(&[443, 443, 53, 53, 80]);
        let destination = SocketAddr::new(target.address, port);
        let packet = if port == 53 {
            udp_datagram(client, destination, b"question")
        } else {
            let segment = tests::packet::builders::tcp_segment(client, destination);
            match random.below(4) {
                0 | 1 => segment.syn(1_000),
                2 => segment.ack(1_001, 5_001),
                _ => segment.ack(1_001, 5_001).with_payload(b"data"),
            }
        }
        .sent_to(side);
        let out = harness.send(side, &packet);
        if !matches!(out.verdict, Verdict::Redirect(_)) {
            self.rejected += 1;
            return;
        }
        let forwarded = out.expect_forwarded(Side::Provider);
        self.forwarded += 1;
        let (number, endpoint) = self
            .endpoints
            .iter()
            .enumerate()
            .find(|(_, e)| e.side == side && e.address == target.address)
            .unwrap_or_else(|| panic!("{side:?} has no endpoint {destination}:\n{packet}"));
        let approval = endpoint
            .approval
            .unwrap_or_else(|| panic!("{} is not approved:\n{packet}", endpoint.name));
        let ends = five_tuple(&forwarded.packet);
        assert!(
            self.backends[endpoint.service].contains(&ends.1.ip()),
            "{} leads to {}",
            endpoint.name,
            ends.1
        );
        let (_, nat) = NAT
            .iter()
            .find(|(s, _)| *s == endpoint.service)
            .expect("a service");
        assert!(
            ends.0.ip().to_string().starts_with(nat),
            "{} from {}",
            endpoint.name,
            ends.0
        );
        let flow = ModelFlow {
            endpoint: number,
            approval,
            client,
            destination,
        };
        if let Some(old) = self.flows.insert(ends, flow) {
            let same = (old.endpoint, old.client, old.destination) == (number, client, destination);
            let over = self.endpoints[old.endpoint].approval != Some(old.approval);
            assert!(
                same || over,
                "two flows share {ends:?}: {old:?} and {flow:?}"
            );
        } else {
            self.order.push(ends);
        }
        // The same packet must be forwarded alike.
        let again = harness.send(side, &packet);
        assert_eq!(
            without_id(&again.expect_forwarded(Side::Provider).packet),
            without_id(&forwarded.packet),
            "the same packet was forwarded differently"
        );
    }

    /// Sends a packet from a backend: a reply on a flow, or another packet.
    fn provider_sends(&mut self, harness: &mut DifferentialHarness, random: &mut Random) {
        if self.order.is_empty() {
            return;
        }
        let (mut nat, backend, protocol) = *random.pick(&self.order);
        if random.one_in(5) {
            nat.set_port(nat.port() ^ 4);
        }
        let packet = if protocol == 17 {
            udp_datagram(backend, nat, b"answer")
        } else {
            let segment = tests::packet::builders::tcp_segment(backend, nat);
            match random.below(3) {
                0 => segment.syn_ack(5_000, 1_001),
                1 => segment.ack(5_001, 1_001),
                _ => segment.ack(5_001, 1_001).with_payload(b"data"),
            }
        }
        .with_source_mac(BACKEND_MAC);
        let out = harness.send(Side::Provider, &packet);
        if !matches!(out.verdict, Verdict::Redirect(_)) {
            self.rejected += 1;
            return;
        }
        self.forwarded += 1;
        let flow = self
            .flows
            .get(&(nat, backend, protocol))
            .unwrap_or_else(|| panic!("no flow has this packet:\n{packet}"));
        let endpoint = &self.endpoints[flow.endpoint];
        assert_eq!(
            endpoint.approval,
            Some(flow.approval),
            "{} was cut since:\n{packet}",
            endpoint.name
        );
        let forwarded = out.expect_forwarded(endpoint.side);
        let (source, destination, _) = five_tuple(&forwarded.packet);
        assert_eq!((source, destination), (flow.destination, flow.client));
    }

    /// Sends a malformed packet from a random side.
    fn send_malformed(harness: &mut DifferentialHarness, random: &mut Random) {
        let side = *random.pick(&[Side::A, Side::B, Side::Provider]);
        let (from, to) = (address("10.0.0.5"), address("10.0.0.100"));
        let bytes = (0..random.below(60))
            .map(|_| random.next_u64().to_le_bytes()[0])
            .collect();
        let protocol = *random.pick(&[1, 6, 17, 58, 132]);
        let packet = ip_packet(from, to, Transport::Other(protocol, bytes)).sent_to(side);
        let mut frame = packet.bytes(false);
        let at = random.below(frame.len());
        frame[at] ^= 1 << random.below(8);
        harness.send_bytes(side, &frame);
    }
}

/// Returns the sockets of a packet, and its protocol.
fn five_tuple(packet: &Packet) -> FiveTuple {
    let (source, destination, transport) = ip_parts(packet);
    let (from, to, protocol) = match transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination, 6),
        Transport::Udp(udp) => (udp.source, udp.destination, 17),
        other => panic!("no ports: {other:?}"),
    };
    ((source, from).into(), (destination, to).into(), protocol)
}

#[test]
fn isolation_and_revocation_invariants_hold() {
    with_harness(|harness| {
        for seed in 1..=4 {
            harness.reset();
            let mut random = Random::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut model = Model::new();
            for _ in 0..700 {
                match random.below(20) {
                    0 => model.decide(harness, &mut random),
                    1 => {
                        let up = random.one_in(2);
                        harness.set_reachable(BACKENDS[random.below(2)], up);
                    }
                    2 => Model::send_malformed(harness, &mut random),
                    3..=11 => model.consumer_sends(harness, &mut random),
                    _ => model.provider_sends(harness, &mut random),
                }
            }
            // The test is valid only if many packets were forwarded, and many were not.
            assert!(
                model.forwarded > 100 && model.rejected > 100,
                "{} {}",
                model.forwarded,
                model.rejected
            );
        }
    });
}
