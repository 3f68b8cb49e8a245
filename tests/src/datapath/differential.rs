//! The packet laboratory: one configuration, handled by the native stages and by the program in the
//! kernel (`BPF_PROG_TEST_RUN`). Each packet goes through both, and both must say and give the same.

use std::{
    collections::BTreeMap,
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::{TestRun as _, programs::TestRunOptions};
use gateway::{
    bpf::{
        flow_tables,
        loader::{LoadParameters, Program, ProgramInfo},
        maps::{self, HasFlowMaps, Maps},
        syscalls,
    },
    compile::{
        map_snapshot::MapSnapshot,
        observed::{Interface, Observed, ObservedNextHop},
        plan::plan,
        recompile::compile,
    },
    model::{Decision, Reference, operations},
};
use gateway_common::{
    Be16, DropReason, V4, V6, Verdict,
    flow::{Direction, Flow, FlowKey, NetworkProto, StateWord, Table},
    maps::{
        AddressConflict, AddressKey, ConnectionCounters, ConnectionUsage, IdentificationState,
        Statistic,
    },
    packet::PortPair,
    pipeline::MIN_SOURCE_PORT,
    sim::{SimFlowTables, SimMaps},
};
use serde_json::{Value, json};

pub use crate::{datapath::assertions::*, packet::builders::*};
use crate::{
    datapath::{
        fast_path_oracle,
        fixture::{DesiredFixture, body},
        fuzz,
    },
    net::namespace::{BpfDirectory, Namespace},
    packet::{Mac, Packet},
};

/// The key of the hashes.
pub const SEED: u64 = 0x5eed;

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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::Provider, Self::Host];

    pub(crate) const fn interface(self) -> &'static str {
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
pub const NO_BACKENDS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);
/// The same, of one that is silent about it.
pub const DROPPING_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 103);
/// An endpoint of A's, to the service that offers every port.
pub const ALL_PORTS_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 104);
/// An endpoint of A's by IPv4, to the service whose backends are IPv6.
pub const NAT46_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 105);
/// The reverse.
pub const NAT64_ENDPOINT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x105);
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

/// The first configuration as the maps have it, where interfaces' numbers are those of the sides and
/// 1.
#[must_use]
pub fn configuration() -> MapSnapshot {
    let mut observed = Observed::default();
    for side in [Side::A, Side::B, Side::Provider] {
        insert_attachment(&mut observed, side, side as u32 + 1);
    }
    for backend in all_backends() {
        insert_next_hop(&mut observed, backend);
    }
    compile(
        &DesiredFixture::with_initial_objects().state,
        &observed,
        &MapSnapshot::default(),
    )
    .0
}

/// All backends.
fn all_backends() -> impl Iterator<Item = IpAddr> {
    let v6 = BACKENDS_V6.into_iter().map(IpAddr::V6);
    BACKENDS.into_iter().map(IpAddr::V4).chain(v6)
}

/// An interface is there, and up.
fn insert_attachment(observed: &mut Observed, side: Side, ifindex: u32) {
    let interface = Interface {
        ifindex,
        mac: gateway_common::packet::Mac::new(side.mac()),
        mtu: 1_500,
    };
    let name = side.interface().to_owned();
    observed.interfaces.insert(name, interface);
}

/// A backend answers.
fn insert_next_hop(observed: &mut Observed, backend: IpAddr) {
    let key = ("shop/net".parse().expect("a reference"), backend);
    let hop = ObservedNextHop {
        interface: Side::Provider.interface().to_owned(),
        mac: gateway_common::packet::Mac::new(BACKEND_MAC),
    };
    observed.next_hops.insert(key, hop);
}

/// The laboratory.
pub struct DifferentialHarness {
    native: SimMaps,
    program: Program,
    maps: Maps,
    contents: MapSnapshot,
    observed: Observed,
    ifindexes: BTreeMap<Side, u32>,
    desired: DesiredFixture,
    /// The frames sent since the beginning, as the fuzzer's corpus has them.
    recorded_frames: Vec<u8>,
    bpf: BpfDirectory,
}

/// Runs a function with a laboratory, in a network namespace of its own.
///
/// # Panics
/// When it can't be set up, or the function does.
pub fn with_harness<T: Send + 'static>(
    function: impl FnOnce(&mut DifferentialHarness) -> T + Send + 'static,
) -> T {
    with_harness_reject_limit(0, function)
}

/// The same, where no more than so many refusals are sent each second.
///
/// # Panics
/// As [`with_harness`].
pub fn with_harness_reject_limit<T: Send + 'static>(
    refusals_per_second: u32,
    function: impl FnOnce(&mut DifferentialHarness) -> T + Send + 'static,
) -> T {
    let host = Namespace::new("lab");
    for side in Side::ALL {
        let (name, [.., last]) = (side.interface(), side.mac());
        host.ip(&format!(
            "link add name {name} address 02:00:00:00:00:{last:02x} type veth peer name {name}-far"
        ));
        host.ip(&format!("link set dev {name}-far up"));
        host.ip(&format!("link set dev {name} up"));
    }
    host.run_in(move || function(&mut DifferentialHarness::new(refusals_per_second)))
}

impl DifferentialHarness {
    fn new(refusals_per_second: u32) -> Self {
        let bpf = BpfDirectory::new();
        let parameters = LoadParameters {
            seed: SEED,
            rejects_per_second: refusals_per_second,
            log_packets: false,
        };
        let (mut program, maps) = Program::load(bpf.path(), parameters).expect("the program");
        let mut ifindexes = BTreeMap::new();
        for side in Side::ALL {
            let index = nix::net::if_::if_nametoindex(side.interface()).expect("an interface");
            ifindexes.insert(side, index);
            // A test run is possible only for an interface that has a program.
            program.attach(index).expect("native XDP on a veth");
        }
        let mut harness = Self {
            native: SimMaps::default(),
            program,
            maps,
            contents: MapSnapshot::default(),
            observed: Observed::default(),
            ifindexes,
            desired: DesiredFixture::with_initial_objects(),
            recorded_frames: Vec::new(),
            bpf,
        };
        harness.reset();
        harness
    }

    /// Begins anew: the first configuration, no flows, nothing counted.
    pub fn reset(&mut self) {
        self.desired = DesiredFixture::with_initial_objects();
        for side in [Side::A, Side::B, Side::Provider] {
            self.observe_attachment(side, true);
        }
        for backend in all_backends() {
            self.observe_backend(backend, true);
        }
        self.observed.tentative.clear();
        self.observed.unhealthy.clear();
        self.recorded_frames.clear();
        self.reconcile();
        self.clear_flow_tables::<V4>();
        self.clear_flow_tables::<V6>();
        for key in self.maps.conflicts().expect("the conflicts").keys() {
            self.maps
                .delete_conflict(key)
                .expect("a conflict forgotten");
        }
        for bucket in self.native.identification_states.indices() {
            self.maps
                .set_identifications(bucket, IdentificationState::default())
                .expect("identifications written");
        }
        for slot in self.contents.connections.keys() {
            self.maps
                .set_usage(*slot, ConnectionUsage::default())
                .expect("usage written");
        }
        self.native = SimMaps {
            hash_seed: SEED,
            now: maps::now(),
            ..SimMaps::default()
        };
        self.reconcile();
    }

    /// Removes the flows that are being opened by IPv4 from the kernel's table.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn clear_half_open(&mut self) {
        for (key, _) in self.kernel_flows::<V4>(Table::HalfOpen) {
            let removed = self.maps.remove_flow(Table::HalfOpen, &key);
            removed.expect("a flow removed");
        }
    }

    /// Empties the kernel's tables.
    fn clear_flow_tables<F: HasFlowMaps>(&mut self) {
        for table in [Table::Established, Table::HalfOpen] {
            for (key, _) in self.kernel_flows::<F>(table) {
                self.maps.remove_flow(table, &key).expect("a flow removed");
            }
        }
        self.maps
            .clear_fragments::<F>()
            .expect("fragments forgotten");
    }

    /// Brings both worlds' maps into step with what is desired.
    fn reconcile(&mut self) {
        let (wanted, no_room) = compile(&self.desired.state, &self.observed, &self.contents);
        assert_eq!(no_room, []);
        let plan = plan(&self.contents, &wanted);
        self.maps
            .apply_plan(&plan, &mut self.contents)
            .expect("the maps written");
        let native = &mut self.native;
        native.attachments = wanted.attachments.into_iter().collect();
        native.egress = wanted.egress.into_iter().collect();
        native.addresses = wanted.addresses.into_iter().collect();
        native.ports = wanted.ports.into_iter().collect();
        native.maglev = wanted.maglev.into_iter().collect();
        native.backends = wanted.backends.into_iter().collect();
        native.nat_addresses = wanted.nat_addresses.into_iter().collect();
        native.connections = wanted.connections.into_iter().collect();
        native.limits = wanted.limits.into_iter().collect();
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
    pub fn set_backends(&mut self, backends: &Value) {
        self.change_web_service(|spec| spec["resources"][0]["backends"] = backends.clone());
    }

    /// A provider changes its web service.
    pub fn change_web_service(&mut self, edit: impl FnOnce(&mut Value)) {
        self.change_service("web", edit);
    }

    /// A provider changes a service of its.
    ///
    /// # Panics
    /// When that is refused.
    pub fn change_service(&mut self, service: &str, edit: impl FnOnce(&mut Value)) {
        let service: Reference = format!("shop/{service}").parse().expect("a reference");
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
    pub fn set_interface_up(&mut self, side: Side, up: bool) {
        self.observe_attachment(side, up);
        self.reconcile();
    }

    /// A backend is found, or lost.
    pub fn set_reachable(&mut self, backend: Ipv4Addr, reachable: bool) {
        self.observe_backend(backend.into(), reachable);
        self.reconcile();
    }

    /// A backend of a service's only resource fails its health check.
    ///
    /// # Panics
    /// Never: literals are names.
    pub fn mark_unhealthy(&mut self, service: &str, backend: IpAddr) {
        let service = format!("shop/{service}").parse().expect("a reference");
        let resource = "default".parse().expect("a name");
        self.observed.unhealthy.insert((service, resource, backend));
        self.reconcile();
    }

    fn observe_attachment(&mut self, side: Side, up: bool) {
        if up {
            insert_attachment(&mut self.observed, side, self.ifindexes[&side]);
        } else {
            self.observed.interfaces.remove(side.interface());
        }
    }

    fn observe_backend(&mut self, backend: IpAddr, reachable: bool) {
        if reachable {
            insert_next_hop(&mut self.observed, backend);
        } else {
            let key = ("shop/net".parse().expect("a reference"), backend);
            self.observed.next_hops.remove(&key);
        }
    }

    fn kernel_flows<F: HasFlowMaps>(&self, table: Table) -> Vec<(FlowKey<F>, Flow<F>)> {
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
        self.compare_flow_tables(table, &self.native.flows_v4)
            + self.compare_flow_tables(table, &self.native.flows_v6)
    }

    #[track_caller]
    fn compare_flow_tables<F: HasFlowMaps>(
        &self,
        table: Table,
        native: &SimFlowTables<F>,
    ) -> usize {
        let native = match table {
            Table::Established => native.established.entries(),
            Table::HalfOpen => native.half_open.entries(),
        };
        // Times differ: one clock is set, the other runs.
        let timeless = |flows: Vec<(FlowKey<F>, Flow<F>)>| -> Vec<(FlowKey<F>, Flow<F>)> {
            let timeless = |flow: Flow<F>| Flow {
                last_seen: 0,
                state_word: match flow.direction() {
                    Direction::ToService => StateWord::NONE,
                    Direction::ToConsumer => flow.state_word,
                },
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
    pub fn evict_half_open(&mut self, side: Side) {
        let network = self.contents.attachments[&self.ifindexes[&side]].network;
        for (key, _) in self.kernel_flows::<V4>(Table::HalfOpen) {
            if key.network_proto.network() == network {
                self.maps
                    .remove_flow(Table::HalfOpen, &key)
                    .expect("a flow removed");
                self.native.flows_v4.half_open.remove(&key);
            }
        }
        for (key, _) in self.kernel_flows::<V6>(Table::HalfOpen) {
            if key.network_proto.network() == network {
                self.maps
                    .remove_flow(Table::HalfOpen, &key)
                    .expect("a flow removed");
                self.native.flows_v6.half_open.remove(&key);
            }
        }
    }

    /// Sets what an endpoint uses of what it may, in both worlds.
    ///
    /// # Panics
    /// When there is no such endpoint.
    pub fn set_usage(&mut self, endpoint: &str, usage: ConnectionUsage) {
        let slot = self.connection_slot(endpoint);
        self.maps.set_usage(slot, usage).expect("usage written");
        self.native.usage.set(slot, usage);
    }

    /// Sets the allocation state of all identifications that were used so far, in both worlds.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_identifications(&mut self, state: IdentificationState) {
        for bucket in self.native.identification_states.indices() {
            self.native.identification_states.set(bucket, state);
            let written = self.maps.set_identifications(bucket, state);
            written.expect("identifications written");
        }
    }

    /// What crossed for an endpoint since the beginning, as the native world counts.
    ///
    /// # Panics
    /// When there is no such endpoint.
    #[must_use]
    pub fn forwarded_counters(&self, endpoint: &str) -> ConnectionCounters {
        let slot = self.connection_slot(endpoint);
        let counted = self.native.connection_counters.get(&slot);
        counted.copied().unwrap_or_default()
    }

    /// The link slot of an endpoint.
    fn connection_slot(&self, endpoint: &str) -> u32 {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        let record = &self.desired.state.endpoints[&endpoint];
        record.object.connection.slot
    }

    /// An endpoint's address is not in use yet: it is being found out who else has it.
    ///
    /// # Panics
    /// Never: the reference is one.
    pub fn mark_tentative(&mut self, network: &str, address: IpAddr) {
        let network = network.parse().expect("a reference");
        self.observed.tentative.insert((network, address));
        self.reconcile();
    }

    /// The addresses that others were seen to use, and their stations: the same in both worlds.
    ///
    /// # Panics
    /// When the worlds differ.
    #[must_use]
    pub fn conflicts(&self) -> Vec<(IpAddr, Mac)> {
        let seen = |key: &AddressKey, conflict: &AddressConflict| {
            (IpAddr::from(key.address), conflict.mac.bytes())
        };
        let kernel = self.maps.conflicts().expect("the conflicts");
        let kernel: Vec<_> = kernel.iter().map(|(k, v)| seen(k, v)).collect();
        let mut native: Vec<_> = self.native.conflicts.iter().collect();
        native.sort_by_key(|(key, _)| **key);
        let native: Vec<_> = native.into_iter().map(|(k, v)| seen(k, v)).collect();
        assert_eq!(native, kernel);
        native
    }

    /// A source NAT address of the same service that is another.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn other_snat_address(&self, address: IpAddr) -> IpAddr {
        let mut services = self.desired.state.services.values();
        let mut ranges = services
            .by_ref()
            .flat_map(|record| &record.object.spec.nat_addresses);
        let range = ranges
            .find(|range| range.contains(address))
            .expect("a source NAT address");
        let mut others = range.iter().filter(|other| *other != address);
        others.next().expect("another address")
    }

    /// The kernel's flow tables.
    ///
    /// # Panics
    /// When the process has no descriptors left.
    #[must_use]
    pub fn flow_tables(&self) -> flow_tables::FlowTableSet {
        flow_tables::FlowTableSet::new(&self.maps).expect("descriptors")
    }

    /// The program, as the kernel has it.
    ///
    /// # Panics
    /// When it is not loaded.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        let program = self.program.xdp().expect("the program");
        program.fd().expect("a descriptor").as_fd()
    }

    /// A map of the program's.
    ///
    /// # Panics
    /// When there is none of the name.
    #[must_use]
    pub fn map(&self, name: &str) -> OwnedFd {
        let directory = format!("maps-v{}", gateway_common::maps::LAYOUT_VERSION);
        let path = self.bpf.path().join(directory).join(name);
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
        syscalls::open_pinned(&path).expect("a pinned map")
    }

    /// The kernel's maps.
    #[must_use]
    pub const fn maps(&self) -> &Maps {
        &self.maps
    }

    /// What the maps hold, but for flows.
    #[must_use]
    pub const fn contents(&self) -> &MapSnapshot {
        &self.contents
    }

    /// The kernel's number for the interface of a side.
    #[must_use]
    pub fn ifindex(&self, side: Side) -> u32 {
        self.ifindexes[&side]
    }

    /// What the kernel says of the program.
    ///
    /// # Panics
    /// When it says nothing.
    #[must_use]
    pub fn program_info(&self) -> ProgramInfo {
        self.program.info().expect("the program's counts")
    }

    /// Takes so many of 100 source ports of a service's IPv4 addresses, towards its first backend's
    /// port 53 by UDP, in the native world; says how many.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn occupy_snat_ports(&mut self, service: &str, percent: u32) -> usize {
        let service: Reference = format!("shop/{service}").parse().expect("a reference");
        let spec = &self.desired.state.services[&service].object.spec;
        let network = self.contents.attachments[&self.ifindexes[&Side::Provider]].network;
        let word = |address: IpAddr| gateway_common::IpAddress::from(address).to_v4();
        let backend = spec.resources[0].backends[0].address;
        let source = word(backend).expect("IPv4");
        let addresses = spec.nat_addresses.iter().flat_map(|range| range.iter());
        let mut taken = 0;
        for address in addresses.filter_map(word) {
            for port in MIN_SOURCE_PORT..=u16::MAX {
                // Neighbours are free or taken alike nowhere.
                if u32::from(port).wrapping_mul(2_654_435_761) >> 16 >= percent * 0x1_0000 / 100 {
                    continue;
                }
                let key = FlowKey::<V4> {
                    network_proto: NetworkProto::new(network, 17),
                    source,
                    destination: address,
                    ports: PortPair::new(Be16::new(53), Be16::new(port)),
                };
                self.native.flows_v4.established.set(key, Flow::default());
                taken += 1;
            }
        }
        taken
    }

    /// The native world, for limits that the kernel's can't be given afterwards.
    pub fn native_maps(&mut self) -> &mut SimMaps {
        &mut self.native
    }

    /// Sends a packet through the native stages only, for what the kernel can't be made to do.
    pub fn send_native(&mut self, from: Side, packet: &Packet) -> Verdict {
        self.send_native_bytes(from, &packet.bytes(false))
    }

    /// The same with a frame, whatever its bytes are.
    pub fn send_native_bytes(&mut self, from: Side, frame: &[u8]) -> Verdict {
        fast_path_oracle::process_on_both_paths(&mut self.native, self.ifindexes[&from], frame).0
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
    pub fn send(&mut self, from: Side, packet: &Packet) -> PacketResult {
        self.send_bytes(from, &packet.bytes(false))
    }

    /// Sends a packet in whose checksum is left to hardware.
    ///
    /// # Panics
    /// When the two worlds differ.
    #[track_caller]
    pub fn send_offloaded(&mut self, from: Side, packet: &Packet) -> PacketResult {
        self.send_bytes(from, &packet.bytes(true))
    }

    /// Sends a frame in, whatever its bytes are.
    ///
    /// # Panics
    /// When the two worlds differ.
    #[track_caller]
    pub fn send_bytes(&mut self, from: Side, frame: &[u8]) -> PacketResult {
        self.recorded_frames
            .extend(fuzz::encode_record(from, frame));
        let ifindex = self.ifindexes[&from];
        let drops_before = self.native.drops.clone();
        let (verdict, after) =
            fast_path_oracle::process_on_both_paths(&mut self.native, ifindex, frame);
        let kernel_before = (self.kernel_drops(), self.kernel_statistics());
        let (action, kernel_after) = self.run_in_kernel(ifindex, frame);
        let expected = match verdict {
            Verdict::Pass => 2,
            Verdict::Drop(..) => 1,
            Verdict::Reply
            | Verdict::TcpReset(..)
            | Verdict::IcmpError(..)
            | Verdict::Redirect(_) => 4,
        };
        let show = |bytes: &[u8]| match Packet::parse(bytes) {
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
            Verdict::Redirect(slot) => self.side_of_egress(slot),
            Verdict::Reply | Verdict::TcpReset(..) | Verdict::IcmpError(..) => Some(from),
            _ => None,
        };
        PacketResult {
            verdict,
            frame: after,
            egress_side: out,
        }
    }

    /// The frames sent since the beginning, as the fuzzer's corpus has them.
    #[must_use]
    pub fn recorded_frames(&self) -> &[u8] {
        &self.recorded_frames
    }

    fn side_of_egress(&self, slot: u32) -> Option<Side> {
        let ifindex = self.contents.tx_ports.get(&slot)?;
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
        let program = self.program.xdp().expect("the program");
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
        let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
        let answer = self.send(
            Side::Provider,
            &tcp(backend, nat)
                .with_source_mac(BACKEND_MAC)
                .syn_ack(5_000, 1_001),
        );
        answer.expect_forwarded(Side::A);
        let ack = self.send(Side::A, &tcp(client, endpoint).ack(1_001, 5_001));
        ack.expect_forwarded(Side::Provider);
        Connection {
            client,
            endpoint,
            nat,
            backend,
        }
    }
}
