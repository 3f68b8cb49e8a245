//! The model test of the flow table: no established flow is lost to the traffic of others.
//!
//! Clients of three endpoints open, close and reset connections in a small table, while SYNs that nobody confirms flood
//! it. After each step the flows that the model has seen established are forwarded in both directions.

use gateway::bpf::flow_tables::HasFlowTable as _;
use gateway_common::{
    Be16, V4,
    flow::{FlowKey, NetworkProto},
    packet::PortPair,
    verdict::Verdict,
};
use tests::{
    datapath::differential::{
        ALL_PORTS_ENDPOINT, BACKEND_MAC, DifferentialHarness, ENDPOINT, ForwardedPacket, HTTPS,
        Side, tcp, with_sized_harness,
    },
    packet::{
        Packet, Socket,
        flag::{ACK, FIN, RST, SYN},
    },
    random::Random,
};

/// Number of buckets of the tables, and of flows that they are made for.
const SIZE: u32 = 64;

/// The platform that the packets are sent through. Each has a clock of its own, and so selects other half-open flows
/// to replace: their tables are not compared.
#[derive(Clone, Copy, Debug)]
enum Platform {
    Native,
    Kernel,
}

impl Platform {
    /// Sends a packet. Returns the sockets that it was forwarded with, or nothing.
    fn send(
        self,
        harness: &mut DifferentialHarness,
        side: Side,
        packet: &Packet,
    ) -> Option<(Socket, Socket)> {
        let forwarded = match self {
            Self::Kernel => harness.run_kernel(side, packet)?,
            Self::Native => {
                let result = harness.run_native(side, packet);
                if !matches!(result.verdict, Verdict::Redirect(_)) {
                    return None;
                }
                let packet = Packet::parse(&result.frame).expect("a packet");
                ForwardedPacket { packet }
            }
        };
        Some(forwarded.sockets())
    }

    /// Returns true if a flow is established.
    fn is_established(self, harness: &mut DifferentialHarness, flow: &ModelFlow) -> bool {
        let attachments = &harness.contents().attachments;
        let network = attachments[&harness.ifindex(flow.side)].network;
        let ((client, client_port), (endpoint, port)) = (flow.client, flow.endpoint);
        let key = FlowKey::<V4> {
            network_proto: NetworkProto::new(network, 6),
            source: client.into(),
            destination: endpoint.into(),
            ports: PortPair::new(Be16::new(client_port), Be16::new(port)),
        };
        let found = match self {
            Self::Native => harness.native_maps().flows_v4.get(&key),
            Self::Kernel => V4::flow_table(harness.flow_tables()).get(&key),
        };
        found.is_some_and(|found| found.control.is_confirmed())
    }
}

/// A flow that the model has seen established.
#[derive(Clone, Copy, Debug)]
struct ModelFlow {
    side: Side,
    client: Socket,
    endpoint: Socket,
    nat: Socket,
    backend: Socket,
}

impl ModelFlow {
    fn of_client(&self, flags: u8, sequence: u32, acknowledgement: u32) -> Packet {
        tcp(self.client, self.endpoint)
            .with_flags(flags, sequence, acknowledgement)
            .sent_to(self.side)
    }

    fn of_backend(&self, flags: u8, sequence: u32, acknowledgement: u32) -> Packet {
        tcp(self.backend, self.nat)
            .with_flags(flags, sequence, acknowledgement)
            .with_source_mac(BACKEND_MAC)
    }
}

struct Model {
    platform: Platform,
    random: Random,
    live: Vec<ModelFlow>,
    ended: Vec<ModelFlow>,
    refused: usize,
    opened: usize,
}

impl Model {
    /// Returns a random client, and an endpoint that it reaches.
    fn pick_sockets(&mut self) -> (Side, Socket, Socket) {
        let (side, endpoint) = *self.random.pick(&[
            (Side::A, (ENDPOINT, HTTPS)),
            (Side::B, (ENDPOINT, HTTPS)),
            (Side::A, (ALL_PORTS_ENDPOINT, 80)),
        ]);
        let host = 5 + u8::try_from(self.random.below(3)).expect("few");
        let port = 20_000 + u16::try_from(self.random.below(500)).expect("few");
        (side, ([10, 0, 0, host].into(), port), endpoint)
    }

    fn is_live(&self, side: Side, client: Socket, endpoint: Socket) -> bool {
        let mut live = self.live.iter();
        live.any(|flow| (flow.side, flow.client, flow.endpoint) == (side, client, endpoint))
    }

    /// Sends SYNs that nobody confirms. Backends answer some.
    fn flood(&mut self, harness: &mut DifferentialHarness) {
        for _ in 0..20 {
            let (side, client, endpoint) = self.pick_sockets();
            if self.is_live(side, client, endpoint) {
                continue;
            }
            let syn = tcp(client, endpoint).syn(1_000).sent_to(side);
            let Some((nat, backend)) = self.platform.send(harness, side, &syn) else {
                continue;
            };
            if self.random.one_in(3) {
                let answer = tcp(backend, nat)
                    .with_source_mac(BACKEND_MAC)
                    .syn_ack(5_000, 1_001);
                self.platform.send(harness, Side::Provider, &answer);
            }
        }
    }

    /// Opens a connection, which may be refused.
    fn open(&mut self, harness: &mut DifferentialHarness) {
        let (side, client, endpoint) = self.pick_sockets();
        if self.is_live(side, client, endpoint) {
            return;
        }
        let syn = tcp(client, endpoint).syn(1_000).sent_to(side);
        let Some((nat, backend)) = self.platform.send(harness, side, &syn) else {
            self.refused += 1;
            return;
        };
        let flow = ModelFlow {
            side,
            client,
            endpoint,
            nat,
            backend,
        };
        let sent = self.platform.send(
            harness,
            Side::Provider,
            &flow.of_backend(SYN | ACK, 5_000, 1_001),
        );
        assert_eq!(sent, Some((endpoint, client)), "no SYN-ACK of {flow:?}");
        let sent = self
            .platform
            .send(harness, side, &flow.of_client(ACK, 1_001, 5_001));
        assert_eq!(sent, Some((nat, backend)), "no confirmation of {flow:?}");
        // A flow beyond its endpoint's share stays half-open.
        if !self.platform.is_established(harness, &flow) {
            self.refused += 1;
            return;
        }
        let mut others = self.live.iter();
        let same = others.find(|other| (other.nat, other.backend) == (nat, backend));
        assert!(same.is_none(), "{same:?} and {flow:?} share a source");
        self.opened += 1;
        self.live.push(flow);
    }

    /// Closes or resets a connection.
    fn end(&mut self, harness: &mut DifferentialHarness) {
        if self.live.is_empty() {
            return;
        }
        let index = self.random.below(self.live.len());
        let flow = self.live.swap_remove(index);
        let packets = match self.random.below(3) {
            0 => vec![(flow.side, flow.of_client(RST, 1_001, 0))],
            1 => vec![(Side::Provider, flow.of_backend(RST, 5_001, 0))],
            _ => vec![
                (flow.side, flow.of_client(FIN | ACK, 1_001, 5_001)),
                (Side::Provider, flow.of_backend(FIN | ACK, 5_001, 1_002)),
                (flow.side, flow.of_client(ACK, 1_002, 5_002)),
            ],
        };
        for (side, packet) in packets {
            let sent = self.platform.send(harness, side, &packet);
            assert!(sent.is_some(), "{flow:?} was lost:\n{packet}");
        }
        self.ended.push(flow);
    }

    /// Sends packets that don't belong to a live connection, but have its addresses and ports.
    fn disturb(&mut self, harness: &mut DifferentialHarness) {
        if self.live.is_empty() {
            return;
        }
        let flow = *self.random.pick(&self.live);
        let far = 1 << (20 + self.random.below(11));
        let strays = [
            (flow.side, flow.of_client(SYN, 77_000, 0)),
            (flow.side, flow.of_client(RST, 1_001 + far, 0)),
            (flow.side, flow.of_client(FIN | ACK, 1_001 + far, 5_001)),
            (Side::Provider, flow.of_backend(SYN | ACK, 77_000, 1_001)),
            (Side::Provider, flow.of_backend(RST, 5_001 + far, 0)),
            (
                Side::Provider,
                flow.of_backend(FIN | ACK, 5_001 + far, 1_001),
            ),
        ];
        let (side, stray) = self.random.pick(&strays);
        self.platform.send(harness, *side, stray);
    }

    /// Sends late segments of a connection that has ended.
    fn linger(&mut self, harness: &mut DifferentialHarness) {
        if self.ended.is_empty() {
            return;
        }
        let flow = *self.random.pick(&self.ended);
        if !self.is_live(flow.side, flow.client, flow.endpoint) {
            let late = flow.of_client(ACK, 1_002, 5_001);
            self.platform.send(harness, flow.side, &late);
        }
        let late = flow.of_backend(ACK, 5_001, 1_001);
        self.platform.send(harness, Side::Provider, &late);
    }

    /// Expects that an established flow is forwarded in both directions.
    fn expect_alive(&self, harness: &mut DifferentialHarness, flow: &ModelFlow) {
        let there = flow.of_client(ACK, 1_001, 5_001).with_payload(b"x");
        let sent = self.platform.send(harness, flow.side, &there);
        assert_eq!(sent, Some((flow.nat, flow.backend)), "{flow:?} was lost");
        let back = flow.of_backend(ACK, 5_001, 1_001).with_payload(b"x");
        let sent = self.platform.send(harness, Side::Provider, &back);
        assert_eq!(
            sent,
            Some((flow.endpoint, flow.client)),
            "{flow:?} was lost"
        );
    }

    fn run(&mut self, harness: &mut DifferentialHarness, steps: u32) {
        for step in 0..steps {
            match self.random.below(8) {
                0 | 1 => self.flood(harness),
                2..=4 => self.open(harness),
                5 => self.end(harness),
                6 => self.disturb(harness),
                _ => self.linger(harness),
            }
            let all = step % 10 == 0 || step + 1 == steps;
            let checked = if all {
                self.live.len()
            } else {
                3.min(self.live.len())
            };
            let first = if all || self.live.is_empty() {
                0
            } else {
                self.random.below(self.live.len())
            };
            for offset in 0..checked {
                let flow = self.live[(first + offset) % self.live.len()];
                self.expect_alive(harness, &flow);
            }
        }
    }
}

#[test]
fn no_established_flow_is_lost_to_the_traffic_of_others() {
    with_sized_harness(0, SIZE, |harness| {
        for platform in [Platform::Native, Platform::Kernel] {
            for seed in 1..=3 {
                harness.reset();
                let mut model = Model {
                    platform,
                    random: Random::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
                    live: Vec::new(),
                    ended: Vec::new(),
                    refused: 0,
                    opened: 0,
                };
                model.run(harness, 600);
                let counts = (model.opened, model.refused, model.live.len());
                println!("{platform:?}: opened, refused and left {counts:?}");
                // The test is valid only if the table was full of established flows at times.
                assert!(model.opened > 80 && model.live.len() > 30, "{counts:?}");
            }
        }
    });
}
