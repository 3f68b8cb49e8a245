//! The packet laboratory: one configuration, handled by the native stages and by the program in the
//! kernel (`BPF_PROG_TEST_RUN`). Each packet goes through both, and both must say and give the same.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{TestRun as _, programs::TestRunOptions};
use gateway::{
    dataplane::{
        compile::{Interface, NextHop, Observed, compile},
        contents::Contents,
        maps::{self, Maps, Tables},
        plan::plan,
        program::Program,
    },
    model::{
        Change, Context, Decision, Identifiers, Problem, Reference, State,
        operations::{self, Policy},
    },
};
use gateway_common::{
    DropReason, V4, V6, Verdict,
    flow::{Flow, FlowKey, Table},
    maps::Statistic,
    native::{FlowTables, World},
};
use serde_json::{Value, json};

use crate::{
    namespace::{BpfDirectory, Namespace},
    packet::{Arp, Content, Ipv4, Ipv6, Mac, Packet, Socket, Tcp, Transport, Udp, flag},
};

/// The key of the hashes.
const SEED: u64 = 0x5eed;

/// Where a packet comes in, or goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The first consumer's network.
    A,
    /// The second consumer's, with the very same addresses.
    B,
    /// The provider's.
    Provider,
    /// An interface that is no attachment.
    Host,
}

impl Side {
    const ALL: [Self; 4] = [Self::A, Self::B, Self::Provider, Self::Host];

    const fn interface(self) -> &'static str {
        match self {
            Self::A => "gw-a",
            Self::B => "gw-b",
            Self::Provider => "gw-p",
            Self::Host => "gw-h",
        }
    }

    /// The hardware address of the gateway's interface there.
    #[must_use]
    pub const fn mac(self) -> Mac {
        [2, 0, 0, 0, 0, self as u8 + 1]
    }
}

/// The address of both consumers' clients.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// The address of both consumers' endpoints of the web service.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// An endpoint of A's that nobody has approved.
pub const PENDING: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
/// An endpoint of A's, to the service that has no backends.
pub const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);
/// The same, of one that is silent about it.
pub const SILENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 103);
/// An endpoint of A's, to the service that offers every port.
pub const EVERY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 104);
/// The backends of the web service, and their weights.
pub const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11)];
/// The consumers' client, by IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
/// Both consumers' endpoints of the IPv6 web service.
pub const ENDPOINT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
/// An endpoint of A's to it that nobody has approved.
pub const PENDING_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x101);
/// The backends of the IPv6 web service.
pub const BACKENDS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11),
];
/// Its first source NAT address; there are 16.
pub const NAT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x40);
/// The first source NAT address of the web service; there are 16.
pub const NAT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 64);
/// The client's station.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 5];
/// A router in the consumer's network, behind which other clients are.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 1];
/// The station that all backends are at.
pub const BACKEND_MAC: Mac = [2, 0, 0, 0, 2, 9];
/// The port that the web service offers by TCP; backends listen on 8443.
pub const HTTPS: u16 = 443;
/// The port that it offers by UDP.
pub const DNS: u16 = 53;

struct Counted(u128);

impl Identifiers for Counted {
    fn bits(&mut self) -> u128 {
        self.0 += 1;
        self.0 << 96 | self.0 << 64 | self.0 << 32 | self.0
    }
}

/// The control plane of the laboratory: desired state, less store and agent.
struct Desired {
    state: State,
    identifiers: Counted,
    revision: u64,
}

impl Desired {
    fn change(
        &mut self,
        operation: impl FnOnce(&State, &mut Context<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) {
        let mut context = Context {
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            actor: "laboratory",
            identifiers: &mut self.identifiers,
        };
        let changes = operation(&self.state, &mut context, &Policy::default());
        self.revision += 1;
        self.state.apply(
            changes.expect("an operation that is allowed"),
            self.revision,
        );
    }

    fn furnish() -> Self {
        let mut desired = Self {
            state: State::default(),
            identifiers: Counted(1),
            revision: 0,
        };
        for (tenant, side) in [("a", Side::A), ("b", Side::B), ("shop", Side::Provider)] {
            desired.change(|state, context, _| {
                operations::create_tenant(state, context, body(json!({ "name": tenant })))
            });
            let network = json!({
                "name": "net",
                "attachments": [{ "interface": side.interface() }],
            });
            desired.change(|state, context, policy| {
                let tenant = tenant.parse().expect("a name");
                operations::create_network(state, context, policy, &tenant, body(network))
            });
        }
        let web = json!([
            { "protocol": "tcp", "port": HTTPS, "backend_port": 8443 },
            { "protocol": "udp", "port": DNS },
        ]);
        let every = json!([{ "protocol": "tcp", "port": "*" }, { "protocol": "udp", "port": "*" }]);
        let backends = BACKENDS.map(IpAddr::V4);
        desired.service("web", &web, &backends, "10.1.0.64/28", json!({}));
        desired.service(
            "web6",
            &web,
            &BACKENDS_V6.map(IpAddr::V6),
            "fd00:1::40/124",
            json!({}),
        );
        desired.service("empty", &web, &[], "10.1.0.80/28", json!({}));
        desired.service(
            "silent",
            &web,
            &[],
            "10.1.0.96/28",
            json!({ "no_backend": "drop" }),
        );
        desired.service("every", &every, &backends[..1], "10.1.0.112", json!({}));
        for (endpoint, address, service, approved) in [
            ("a/web", IpAddr::V4(ENDPOINT), "web", true),
            ("b/web", ENDPOINT.into(), "web", true),
            ("a/pending", PENDING.into(), "web", false),
            ("a/empty", EMPTY.into(), "empty", true),
            ("a/silent", SILENT.into(), "silent", true),
            ("a/every", EVERY.into(), "every", true),
            ("a/web6", ENDPOINT_V6.into(), "web6", true),
            ("b/web6", ENDPOINT_V6.into(), "web6", true),
            ("a/pending6", PENDING_V6.into(), "web6", false),
        ] {
            desired.endpoint(endpoint, address, service);
            if approved {
                desired.decide(endpoint, Decision::Approve);
            }
        }
        desired
    }

    fn service(&mut self, name: &str, ports: &Value, backends: &[IpAddr], nat: &str, more: Value) {
        let backends: Vec<Value> = backends
            .iter()
            .map(|address| json!({ "address": address }))
            .collect();
        let mut request = json!({
            "name": name,
            "network": "net",
            "resources": [{ "ports": ports, "backends": backends }],
            "nat_addresses": [nat],
            "visibility": ["*"],
        });
        let fields = request.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        self.change(|state, context, policy| {
            let tenant = "shop".parse().expect("a name");
            operations::create_service(state, context, policy, &tenant, body(request))
        });
    }

    fn endpoint(&mut self, endpoint: &str, address: IpAddr, service: &str) {
        let Reference { tenant, name } = endpoint.parse().expect("a reference");
        let request = json!({
            "name": name,
            "network": "net",
            "addresses": [address],
            "service": format!("shop/{service}"),
        });
        self.change(|state, context, policy| {
            operations::create_endpoint(state, context, policy, &tenant, body(request))
        });
    }

    fn decide(&mut self, endpoint: &str, decision: Decision) {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        let record = self.state.endpoints[&endpoint].object.clone();
        let service = record.service_identity.reference;
        self.change(|state, context, _| {
            let link_id = record.connection.link_id;
            operations::decide(state, context, &service, link_id, decision, String::new())
        });
    }
}

fn body<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a request")
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The native stages' verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Where it goes out.
    out: Option<Side>,
}

/// The laboratory.
pub struct Lab {
    native: World,
    program: Program,
    maps: Maps,
    contents: Contents,
    observed: Observed,
    ifindexes: BTreeMap<Side, u32>,
    desired: Desired,
    _bpf: BpfDirectory,
}

/// Runs a function with a laboratory, in a network namespace of its own.
///
/// # Panics
/// When it can't be set up, or the function does.
pub fn with_lab<T: Send + 'static>(function: impl FnOnce(&mut Lab) -> T + Send + 'static) -> T {
    let host = Namespace::new("lab");
    for side in Side::ALL {
        let (name, [.., last]) = (side.interface(), side.mac());
        host.ip(&format!(
            "link add name {name} address 02:00:00:00:00:{last:02x} type veth peer name {name}-far"
        ));
        host.ip(&format!("link set dev {name}-far up"));
        host.ip(&format!("link set dev {name} up"));
    }
    host.run_in(move || function(&mut Lab::new()))
}

impl Lab {
    fn new() -> Self {
        let bpf = BpfDirectory::new();
        let (mut program, maps) = Program::load(bpf.path(), SEED, false).expect("the program");
        let mut ifindexes = BTreeMap::new();
        for side in Side::ALL {
            let index = nix::net::if_::if_nametoindex(side.interface()).expect("an interface");
            ifindexes.insert(side, index);
            // A test run is possible only for an interface that has a program.
            program.attach(index).expect("native XDP on a veth");
        }
        let mut lab = Self {
            native: World::default(),
            program,
            maps,
            contents: Contents::default(),
            observed: Observed::default(),
            ifindexes,
            desired: Desired::furnish(),
            _bpf: bpf,
        };
        lab.reset();
        lab
    }

    /// Begins anew: the first configuration, no flows, nothing counted.
    pub fn reset(&mut self) {
        self.desired = Desired::furnish();
        for side in [Side::A, Side::B, Side::Provider] {
            self.observe(side, true);
        }
        for backend in BACKENDS {
            self.observe_backend(backend.into(), true);
        }
        for backend in BACKENDS_V6 {
            self.observe_backend(backend.into(), true);
        }
        self.reconcile();
        for table in [Table::Established, Table::Embryonic] {
            for (key, _) in self.kernel_flows::<V4>(table) {
                self.maps.remove_flow(table, &key).expect("a flow removed");
            }
            for (key, _) in self.kernel_flows::<V6>(table) {
                self.maps.remove_flow(table, &key).expect("a flow removed");
            }
        }
        self.native = World {
            seed: SEED,
            now: maps::now(),
            ..World::default()
        };
        self.reconcile();
    }

    /// Brings both worlds' maps into step with what is desired.
    fn reconcile(&mut self) {
        let (wanted, no_room) = compile(&self.desired.state, &self.observed, &self.contents);
        assert_eq!(no_room, []);
        let plan = plan(&self.contents, &wanted);
        self.maps
            .write(&plan, &mut self.contents)
            .expect("the maps written");
        let native = &mut self.native;
        native.attachments = wanted.attachments.into_iter().collect();
        native.egress = wanted.egress.into_iter().collect();
        native.addresses = wanted.addresses.into_iter().collect();
        native.ports = wanted.ports.into_iter().collect();
        native.maglev = wanted.maglev.into_iter().collect();
        native.backends = wanted.backends.into_iter().collect();
        native.nat_addresses = wanted.nat_addresses.into_iter().collect();
        native.links = wanted.links.into_iter().collect();
    }

    /// A provider's decision.
    pub fn decide(&mut self, endpoint: &str, decision: Decision) {
        self.desired.decide(endpoint, decision);
        self.reconcile();
    }

    /// A consumer deletes its endpoint.
    pub fn delete_endpoint(&mut self, endpoint: &str) {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        self.desired
            .change(|state, _, _| operations::delete_endpoint(state, &endpoint));
        self.reconcile();
    }

    /// A provider changes its web service's backends.
    pub fn backends(&mut self, backends: &Value) {
        self.change_service(|spec| spec["resources"][0]["backends"] = backends.clone());
    }

    /// A provider changes its web service.
    pub fn change_service(&mut self, edit: impl FnOnce(&mut Value)) {
        let service: Reference = "shop/web".parse().expect("a reference");
        let spec = &self.desired.state.services[&service].object.spec;
        let mut request = serde_json::to_value(spec).expect("a value");
        edit(&mut request);
        self.desired.change(|state, context, _| {
            operations::update_service(state, context, &service, body(request))
        });
        self.reconcile();
    }

    /// A consumer's or provider's network is changed.
    pub fn change_network(&mut self, network: &str, edit: impl FnOnce(&mut Value)) {
        let network: Reference = network.parse().expect("a reference");
        let object = &self.desired.state.networks[&network].object;
        let mut request = json!({ "attachments": object.attachments });
        edit(&mut request);
        self.desired.change(|state, context, _| {
            operations::update_network(state, context, &network, body(request))
        });
        self.reconcile();
    }

    /// An interface goes down, or comes back.
    pub fn interface(&mut self, side: Side, up: bool) {
        self.observe(side, up);
        self.reconcile();
    }

    /// A backend is found, or lost.
    pub fn reachable(&mut self, backend: Ipv4Addr, reachable: bool) {
        self.observe_backend(backend.into(), reachable);
        self.reconcile();
    }

    fn observe(&mut self, side: Side, up: bool) {
        let name = side.interface().to_owned();
        if up {
            let interface = Interface {
                ifindex: self.ifindexes[&side],
                mac: gateway_common::packet::Mac::new(side.mac()),
                mtu: 1_500,
            };
            self.observed.interfaces.insert(name, interface);
        } else {
            self.observed.interfaces.remove(&name);
        }
    }

    fn observe_backend(&mut self, backend: IpAddr, reachable: bool) {
        let key = ("shop/net".parse().expect("a reference"), backend);
        if reachable {
            let hop = NextHop {
                interface: Side::Provider.interface().to_owned(),
                mac: gateway_common::packet::Mac::new(BACKEND_MAC),
            };
            self.observed.next_hops.insert(key, hop);
        } else {
            self.observed.next_hops.remove(&key);
        }
    }

    fn kernel_flows<F: Tables>(&self, table: Table) -> Vec<(FlowKey<F>, Flow<F>)> {
        let mut flows = Vec::new();
        let visit = |key: &FlowKey<F>, flow: &Flow<F>| flows.push((*key, *flow));
        self.maps.for_each_flow(table, visit).expect("the flows");
        flows.sort_by_key(|(key, _)| *key);
        flows
    }

    /// How many flows are in a table, of both families: the same in both worlds.
    ///
    /// # Panics
    /// When the worlds differ.
    #[track_caller]
    pub fn flows(&self, table: Table) -> usize {
        self.compare(table, &self.native.flows_v4) + self.compare(table, &self.native.flows_v6)
    }

    #[track_caller]
    fn compare<F: Tables>(&self, table: Table, native: &FlowTables<F>) -> usize {
        let native = match table {
            Table::Established => native.established.entries(),
            Table::Embryonic => native.embryonic.entries(),
        };
        // Times differ: one clock is set, the other runs.
        let timeless = |flows: Vec<(FlowKey<F>, Flow<F>)>| -> Vec<(FlowKey<F>, Flow<F>)> {
            let timeless = |flow: Flow<F>| Flow {
                last_seen: 0,
                created: 0,
                ..flow
            };
            flows
                .into_iter()
                .map(|(key, flow)| (key, timeless(flow)))
                .collect()
        };
        let (native, kernel) = (timeless(native), timeless(self.kernel_flows(table)));
        assert_eq!(
            native, kernel,
            "native flows (left) and the kernel's differ"
        );
        native.len() / 2
    }

    /// Removes entries of flows that are being opened, as the kernel does when their table is full:
    /// those that the consumer's packets find, or those that the provider's do.
    pub fn evict(&mut self, side: Side) {
        let network = self.contents.attachments[&self.ifindexes[&side]].network;
        for (key, _) in self.kernel_flows::<V4>(Table::Embryonic) {
            if key.network == network {
                self.maps
                    .remove_flow(Table::Embryonic, &key)
                    .expect("a flow removed");
                self.native.flows_v4.embryonic.remove(&key);
            }
        }
        for (key, _) in self.kernel_flows::<V6>(Table::Embryonic) {
            if key.network == network {
                self.maps
                    .remove_flow(Table::Embryonic, &key)
                    .expect("a flow removed");
                self.native.flows_v6.embryonic.remove(&key);
            }
        }
    }

    /// The native world, for limits that the kernel's can't be given afterwards.
    pub fn native(&mut self) -> &mut World {
        &mut self.native
    }

    /// Sends a packet through the native stages only, for what the kernel can't be made to do.
    pub fn send_native(&mut self, from: Side, packet: &Packet) -> Verdict {
        self.native
            .process(self.ifindexes[&from], &packet.bytes(false))
            .0
    }

    fn kernel_drops(&self) -> BTreeMap<DropReason, u64> {
        self.maps.drops().expect("the counters")
    }

    fn kernel_statistics(&self) -> Vec<(Statistic, u64)> {
        self.maps.statistics().expect("the counters")
    }

    /// Sends a packet in.
    ///
    /// # Panics
    /// When the two worlds differ.
    #[track_caller]
    pub fn send(&mut self, from: Side, packet: &Packet) -> Outcome {
        self.send_bytes(from, &packet.bytes(false))
    }

    /// Sends a packet in whose checksum is left to hardware.
    ///
    /// # Panics
    /// When the two worlds differ.
    #[track_caller]
    pub fn send_offloaded(&mut self, from: Side, packet: &Packet) -> Outcome {
        self.send_bytes(from, &packet.bytes(true))
    }

    /// Sends a frame in, whatever its bytes are.
    ///
    /// # Panics
    /// When the two worlds differ.
    #[track_caller]
    pub fn send_bytes(&mut self, from: Side, frame: &[u8]) -> Outcome {
        let ifindex = self.ifindexes[&from];
        let drops_before = self.native.drops.clone();
        let (verdict, after) = self.native.process(ifindex, frame);
        let kernel_before = (self.kernel_drops(), self.kernel_statistics());
        let (action, kernel_after) = self.run_in_kernel(ifindex, frame);
        let expected = match verdict {
            Verdict::Pass => 2,
            Verdict::Drop(..) => 1,
            Verdict::Reply | Verdict::Reset(..) | Verdict::Redirect(_) => 4,
        };
        let show = |bytes: &[u8]| match Packet::read(bytes) {
            Ok(packet) => packet.to_string(),
            Err(error) => format!("  {error}: {bytes:02x?}"),
        };
        let describe = || {
            format!(
                "sent into {from:?}:\n{}\nnative {verdict:?}:\n{}\nkernel action {action}:\n{}",
                show(frame),
                show(&after),
                show(&kernel_after)
            )
        };
        assert_eq!(action, expected, "the verdicts differ\n{}", describe());
        assert!(after == kernel_after, "the packets differ\n{}", describe());
        // Both count the same reason, once, or none.
        let counted = |before: u64, after: u64| after - before;
        for reason in DropReason::ALL {
            let of = |drops: &BTreeMap<DropReason, u64>| drops.get(reason).copied().unwrap_or(0);
            let native = counted(
                drops_before.get(reason).copied().unwrap_or(0),
                self.native.drops.get(reason).copied().unwrap_or(0),
            );
            let kernel = counted(of(&kernel_before.0), of(&self.kernel_drops()));
            assert_eq!(
                native,
                kernel,
                "{reason:?} is counted differently\n{}",
                describe()
            );
        }
        let out = match verdict {
            Verdict::Redirect(slot) => self.side_of_slot(slot),
            Verdict::Reply | Verdict::Reset(..) => Some(from),
            _ => None,
        };
        Outcome {
            verdict,
            frame: after,
            out,
        }
    }

    fn side_of_slot(&self, slot: u32) -> Option<Side> {
        let ifindex = self.contents.devices.get(&slot)?;
        let mut sides = self.ifindexes.iter();
        sides
            .find(|(_, index)| *index == ifindex)
            .map(|(side, _)| *side)
    }

    /// The kernel's action and the frame afterwards.
    fn run_in_kernel(&self, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let length = u32::try_from(frame.len()).expect("a frame");
        let context = [0, length, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let mut after = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program = self.program.program().expect("the program");
        let result = program.test_run(options).expect("a test run");
        after.truncate(result.data_size_out as usize);
        (result.return_value, after)
    }

    /// Opens a TCP connection of A's client, as far as both sides agree to it.
    ///
    /// # Panics
    /// When it does not open.
    #[track_caller]
    pub fn connect(&mut self, client_port: u16) -> Connection {
        let client = (CLIENT, client_port);
        let endpoint = (ENDPOINT, HTTPS);
        let syn = self.send(Side::A, &tcp(client, endpoint).syn(1_000));
        let (nat, backend) = syn.forwarded(Side::Provider).sockets();
        let answer = self.send(
            Side::Provider,
            &tcp(backend, nat).from(BACKEND_MAC).syn_ack(5_000, 1_001),
        );
        answer.forwarded(Side::A);
        let ack = self.send(Side::A, &tcp(client, endpoint).ack(1_001, 5_001));
        ack.forwarded(Side::Provider);
        Connection {
            client,
            endpoint,
            nat,
            backend,
        }
    }
}

/// The four ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: Socket,
    /// What it connected to.
    pub endpoint: Socket,
    /// As what it appears.
    pub nat: Socket,
    /// Who answers.
    pub backend: Socket,
}

impl Connection {
    /// A segment from the client.
    #[must_use]
    pub fn from_client(&self) -> Packet {
        tcp(self.client, self.endpoint).ack(1_001, 5_001)
    }

    /// A segment from the backend.
    #[must_use]
    pub fn from_backend(&self) -> Packet {
        tcp(self.backend, self.nat)
            .from(BACKEND_MAC)
            .ack(5_001, 1_001)
    }
}

impl Outcome {
    fn packet(&self) -> Packet {
        match Packet::read(&self.frame) {
            Ok(packet) => packet,
            Err(error) => panic!("{:?}, but {error}: {:02x?}", self.verdict, self.frame),
        }
    }

    /// It was rewritten and goes out there, with every checksum right.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn forwarded(&self, to: Side) -> Forwarded {
        assert!(
            matches!(self.verdict, Verdict::Redirect(_)) && self.out == Some(to),
            "{:?} to {:?}, not forwarded to {to:?}",
            self.verdict,
            self.out
        );
        let packet = self.packet();
        assert_eq!(packet.from, to.mac(), "it leaves in somebody else's name");
        Forwarded { packet }
    }

    /// It was dropped, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn dropped(&self, reason: DropReason) {
        assert!(
            matches!(self.verdict, Verdict::Drop(found, _) if found == reason),
            "{:?}, not dropped for {reason:?}",
            self.verdict
        );
    }

    /// It was left to the host, untouched.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn passed(&self, sent: &Packet) {
        assert_eq!(self.verdict, Verdict::Pass);
        assert_eq!(self.frame, sent.bytes(false));
    }

    /// The gateway answered it.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn replied(&self) -> Packet {
        assert_eq!(self.verdict, Verdict::Reply);
        self.packet()
    }

    /// A TCP reset was sent back, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn reset(&self, reason: DropReason) -> Tcp {
        assert!(
            matches!(self.verdict, Verdict::Reset(found, _) if found == reason),
            "{:?}, not a reset for {reason:?}",
            self.verdict
        );
        let packet = self.packet();
        match packet.content {
            Content::Ipv4(Ipv4 {
                transport: Transport::Tcp(tcp),
                ..
            })
            | Content::Ipv6(Ipv6 {
                transport: Transport::Tcp(tcp),
                ..
            }) if tcp.flags & flag::RST != 0 => tcp,
            _ => panic!("no reset:\n{packet}"),
        }
    }
}

/// A packet that was forwarded.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// The packet as it leaves.
    pub packet: Packet,
}

impl Forwarded {
    /// The IPv4 packet.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn ipv4(&self) -> &Ipv4 {
        match &self.packet.content {
            Content::Ipv4(ipv4) => ipv4,
            _ => panic!("no IPv4:\n{}", self.packet),
        }
    }

    /// Where it is from, and for whom.
    ///
    /// # Panics
    /// When it is neither TCP nor UDP.
    #[must_use]
    pub fn sockets(&self) -> (Socket, Socket) {
        let ipv4 = self.ipv4();
        let (source, destination) = match &ipv4.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            _ => panic!("no ports:\n{}", self.packet),
        };
        ((ipv4.source, source), (ipv4.destination, destination))
    }

    /// It comes from a source NAT address of the web service, and from no well-known port.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn from_nat(self) -> Self {
        let ((address, port), _) = self.sockets();
        let within = u32::from(address).wrapping_sub(u32::from(NAT)) < 16;
        assert!(
            within && port >= 1_024,
            "from {address}:{port}, not from source NAT"
        );
        self
    }

    /// It is for a backend of the web service, on this port.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn to_backend(self, port: u16) -> Self {
        let (_, (address, found)) = self.sockets();
        assert!(
            BACKENDS.contains(&address) && found == port,
            "to {address}:{found}"
        );
        assert_eq!(self.packet.to, BACKEND_MAC);
        self
    }

    /// It is from and for these.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn between(self, source: Socket, destination: Socket) -> Self {
        assert_eq!(self.sockets(), (source, destination));
        self
    }

    /// It goes to this station.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn station(self, mac: Mac) -> Self {
        assert_eq!(self.packet.to, mac);
        self
    }
}

/// A TCP segment, to be completed with one of the words below: from the client's station, to the
/// gateway's in A.
#[must_use]
pub fn tcp(source: Socket, destination: Socket) -> Packet {
    let segment = Tcp {
        source: source.1,
        destination: destination.1,
        sequence: 0,
        acknowledgement: 0,
        flags: 0,
        window: 64_240,
        options: Vec::new(),
        payload: Vec::new(),
    };
    packet(Ipv4::new(source.0, destination.0, Transport::Tcp(segment)))
}

/// An address of IPv6 and a port.
pub type SocketV6 = (Ipv6Addr, u16);

impl Forwarded {
    /// The IPv6 packet.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn ipv6(&self) -> &Ipv6 {
        match &self.packet.content {
            Content::Ipv6(ipv6) => ipv6,
            _ => panic!("no IPv6:\n{}", self.packet),
        }
    }

    /// Where the IPv6 packet is from, and for whom.
    ///
    /// # Panics
    /// When it is neither TCP nor UDP.
    #[must_use]
    pub fn sockets_v6(&self) -> (SocketV6, SocketV6) {
        let ipv6 = self.ipv6();
        let (source, destination) = match &ipv6.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            _ => panic!("no ports:\n{}", self.packet),
        };
        ((ipv6.source, source), (ipv6.destination, destination))
    }
}

/// A TCP segment over IPv6, to be completed with words as [`tcp`]'s.
#[must_use]
pub fn tcp_v6(source: SocketV6, destination: SocketV6) -> Packet {
    let mut packet = tcp((CLIENT, source.1), (ENDPOINT, destination.1));
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source.0, destination.0, ipv4.transport));
    }
    packet
}

/// A UDP datagram over IPv6.
#[must_use]
pub fn udp_v6(source: SocketV6, destination: SocketV6, payload: &[u8]) -> Packet {
    let mut packet = udp((CLIENT, source.1), (ENDPOINT, destination.1), payload);
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source.0, destination.0, ipv4.transport));
    }
    packet
}

/// An ICMPv6 message.
#[must_use]
pub fn icmp_v6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, rest: &[u8]) -> Packet {
    let mut packet = icmp(CLIENT, ENDPOINT, kind, 0, rest);
    if let Content::Ipv4(ipv4) = packet.content {
        packet.content = Content::Ipv6(Ipv6::new(source, destination, ipv4.transport));
    }
    packet
}

/// A neighbour solicitation to the group of the address that it asks for.
#[must_use]
pub fn solicitation(target: Ipv6Addr, source: Ipv6Addr) -> Packet {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(x),
        u16::from_be_bytes([y, z]),
    );
    let mut rest = vec![0; 4];
    rest.extend(target.octets());
    if !source.is_unspecified() {
        rest.extend([1, 1]);
        rest.extend(CLIENT_MAC);
    }
    let mut packet = icmp_v6(source, group, 135, &rest).with_v6(|ip| ip.hop_limit = 255);
    packet.to = [0x33, 0x33, 0xff, x, y, z];
    packet
}

/// A UDP datagram, likewise.
#[must_use]
pub fn udp(source: Socket, destination: Socket, payload: &[u8]) -> Packet {
    let datagram = Udp {
        source: source.1,
        destination: destination.1,
        checksummed: true,
        payload: payload.to_vec(),
    };
    packet(Ipv4::new(source.0, destination.0, Transport::Udp(datagram)))
}

/// An ICMP message, likewise.
#[must_use]
pub fn icmp(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, code: u8, rest: &[u8]) -> Packet {
    packet(Ipv4::new(
        source,
        destination,
        Transport::Icmp(kind, code, rest.to_vec()),
    ))
}

fn packet(ipv4: Ipv4) -> Packet {
    Packet {
        to: Side::A.mac(),
        from: CLIENT_MAC,
        content: Content::Ipv4(ipv4),
    }
}

/// An ARP request from a station to all.
#[must_use]
pub fn who_has(target: Ipv4Addr, sender: (Mac, Ipv4Addr)) -> Packet {
    Packet {
        to: [0xff; 6],
        from: sender.0,
        content: Content::Arp(Arp {
            operation: 1,
            sender,
            target: ([0; 6], target),
        }),
    }
}

impl Packet {
    fn ipv4_mut(&mut self) -> &mut Ipv4 {
        match &mut self.content {
            Content::Ipv4(ipv4) => ipv4,
            _ => panic!("no IPv4"),
        }
    }

    fn transport_mut(&mut self) -> &mut Transport {
        match &mut self.content {
            Content::Ipv4(ipv4) => &mut ipv4.transport,
            Content::Ipv6(ipv6) => &mut ipv6.transport,
            _ => panic!("no IP"),
        }
    }

    fn tcp_mut(&mut self) -> &mut Tcp {
        match self.transport_mut() {
            Transport::Tcp(tcp) => tcp,
            _ => panic!("no TCP"),
        }
    }

    /// With a change to its IPv6 header.
    #[must_use]
    pub fn with_v6(mut self, change: impl FnOnce(&mut Ipv6)) -> Self {
        match &mut self.content {
            Content::Ipv6(ipv6) => change(ipv6),
            _ => panic!("no IPv6"),
        }
        self
    }

    /// With these flags and numbers.
    #[must_use]
    pub fn flags(mut self, flags: u8, sequence: u32, acknowledgement: u32) -> Self {
        let tcp = self.tcp_mut();
        (tcp.flags, tcp.sequence, tcp.acknowledgement) = (flags, sequence, acknowledgement);
        self
    }

    /// A SYN, with the options that Linux sends.
    #[must_use]
    pub fn syn(mut self, sequence: u32) -> Self {
        self.tcp_mut().options = vec![2, 4, 5, 0xb4, 4, 2, 1, 1];
        self.flags(flag::SYN, sequence, 0)
    }

    /// A SYN that answers one.
    #[must_use]
    pub fn syn_ack(self, sequence: u32, acknowledgement: u32) -> Self {
        self.flags(flag::SYN | flag::ACK, sequence, acknowledgement)
    }

    /// An acknowledgement.
    #[must_use]
    pub fn ack(self, sequence: u32, acknowledgement: u32) -> Self {
        self.flags(flag::ACK, sequence, acknowledgement)
    }

    /// The same segment with more flags.
    #[must_use]
    pub fn and(mut self, flags: u8) -> Self {
        self.tcp_mut().flags |= flags;
        self
    }

    /// With data.
    #[must_use]
    pub fn data(mut self, payload: &[u8]) -> Self {
        self.tcp_mut().payload = payload.to_vec();
        self
    }

    /// From another station; in the provider's network the gateway's station is another as well.
    #[must_use]
    pub fn from(mut self, mac: Mac) -> Self {
        self.from = mac;
        if mac == BACKEND_MAC {
            self.to = Side::Provider.mac();
        }
        self
    }

    /// To the gateway's station on another side.
    #[must_use]
    pub fn at(mut self, side: Side) -> Self {
        self.to = side.mac();
        self
    }

    /// With a change to its IPv4 header.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        change(self.ipv4_mut());
        self
    }

    /// Without a UDP checksum.
    #[must_use]
    pub fn unchecksummed(mut self) -> Self {
        match self.transport_mut() {
            Transport::Udp(udp) => udp.checksummed = false,
            _ => panic!("no UDP"),
        }
        self
    }
}
