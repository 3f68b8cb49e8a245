//! The differential harness: each packet goes through the native data path and through the program in the kernel
//! (`BPF_PROG_TEST_RUN`), over the same configuration.
//!
//! Verdict, bytes, counters and flow tables must be the same.

mod control_plane;
mod kernel;
mod send;
mod tables;

use crate::{
    datapath::fixture::DesiredFixture,
    net::namespace::{BpfDirectory, Namespace},
};
use gateway::{
    bpf::{
        loader::{LoadParameters, Program},
        maps::{self, Maps},
    },
    compile::{
        map_snapshot::MapSnapshot,
        observed::{Interface, Observed, ObservedNextHop},
        plan::plan,
        recompile::compile,
    },
};
use gateway_common::{
    V4, V6,
    maps::{ConnectionUsage, IdentificationState},
    sim::{SimFlowTable, SimMaps},
};
use std::{collections::BTreeMap, net::IpAddr};

pub use crate::{
    datapath::assertions::*,
    packet::{addresses::*, builders::*},
};

/// Key of the data path's hashes.
pub const SEED: u64 = 0x5eed;

/// Returns the initial configuration as the contents of the maps. The interface index of a side is its number plus 1.
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

/// Returns the backends of all services.
fn all_backends() -> impl Iterator<Item = IpAddr> {
    let v6 = BACKENDS_V6.into_iter().map(IpAddr::V6);
    BACKENDS.into_iter().map(IpAddr::V4).chain(v6)
}

/// Inserts an interface that is up.
fn insert_attachment(observed: &mut Observed, side: Side, ifindex: u32) {
    let interface = Interface {
        ifindex,
        mac: gateway_common::packet::Mac::new(side.mac()),
        mtu: 1_500,
        has_carrier: true,
    };
    let name = side.interface().to_owned();
    observed.interfaces.insert(name, interface);
}

/// Inserts the next hop of a backend.
fn insert_next_hop(observed: &mut Observed, backend: IpAddr) {
    let key = ("shop/net".parse().expect("a reference"), backend);
    let hop = ObservedNextHop {
        interface: Side::Provider.interface().to_owned(),
        mac: gateway_common::packet::Mac::new(BACKEND_MAC),
    };
    observed.next_hops.insert(key, hop);
}

/// The differential harness.
pub struct DifferentialHarness {
    native: SimMaps,
    program: Program,
    maps: Maps,
    contents: MapSnapshot,
    observed: Observed,
    ifindexes: BTreeMap<Side, u32>,
    desired: DesiredFixture,
    /// Frames sent since the last reset, encoded as a sequence of the fuzzer's corpus.
    recorded_frames: Vec<u8>,
    bpf: BpfDirectory,
    /// Number of buckets of each flow table.
    flow_buckets: u32,
}

/// Runs a function with a harness, in a network namespace of its own.
///
/// # Panics
/// Panics if it can't be set up, or the function does.
pub fn with_harness<T: Send + 'static>(
    function: impl FnOnce(&mut DifferentialHarness) -> T + Send + 'static,
) -> T {
    with_harness_reject_limit(0, function)
}

/// Runs a function with a harness whose data path sends at most `refusals_per_second` rejects.
///
/// # Panics
/// Panics like [`with_harness`].
pub fn with_harness_reject_limit<T: Send + 'static>(
    refusals_per_second: u32,
    function: impl FnOnce(&mut DifferentialHarness) -> T + Send + 'static,
) -> T {
    with_sized_harness(refusals_per_second, FLOW_BUCKETS, function)
}

/// Number of buckets of a harness's flow tables.
pub const FLOW_BUCKETS: u32 = 1_024;

/// Runs a function with a harness whose flow tables have this number of buckets.
///
/// # Panics
/// Panics like [`with_harness`].
pub fn with_sized_harness<T: Send + 'static>(
    refusals_per_second: u32,
    flow_buckets: u32,
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
    host.run_in(move || {
        function(&mut DifferentialHarness::new(
            refusals_per_second,
            flow_buckets,
        ))
    })
}

impl DifferentialHarness {
    fn new(refusals_per_second: u32, flow_buckets: u32) -> Self {
        let bpf = BpfDirectory::new();
        let parameters = LoadParameters {
            seed: SEED,
            rejects_per_second: refusals_per_second,
            log_packets: false,
            flow_table_size: flow_buckets,
            flow_table_share: 80,
        };
        let (mut program, maps) = Program::load(bpf.path(), parameters).expect("the program");
        let mut ifindexes = BTreeMap::new();
        for side in Side::ALL {
            let index = nix::net::if_::if_nametoindex(side.interface()).expect("an interface");
            ifindexes.insert(side, index);
            // A test run needs an interface with an attached program.
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
            flow_buckets,
        };
        harness.reset();
        harness
    }

    /// Restores the initial configuration, and removes flows and counters.
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
        self.clear_flow_table::<V4>();
        self.clear_flow_table::<V6>();
        self.maps
            .clear_fragments::<V4>()
            .expect("fragments forgotten");
        self.maps
            .clear_fragments::<V6>()
            .expect("fragments forgotten");
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
            flows_v4: SimFlowTable::new(self.flow_buckets, SEED),
            flows_v6: SimFlowTable::new(self.flow_buckets, SEED),
            flow_table_size: self.flow_buckets.into(),
            ..SimMaps::default()
        };
        self.reconcile();
    }

    /// Makes the maps of both platforms equal to the desired state.
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
}
