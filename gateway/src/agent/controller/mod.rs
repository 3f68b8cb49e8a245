//! The controller: decides changes, commits them to the store, and reconciles the maps with desired and observed
//! state.
//!
//! The controller has three parts. `Desired` is what users asked for, equal to the store. `Observations` is what tasks
//! found out about the host and the backends. `Datapath` is the maps, and the entries that they should hold.

mod availability;
mod commit;
mod draining;
mod next_hops;
mod observe;
mod reconcile;
mod restore;
mod status;
mod usage;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use anyhow::Result;
use gateway_common::{
    IpAddress,
    maps::{AddressKey, LocalAddress},
};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::{
    address_conflict::{
        AddressConflictDetector, ClaimKind, Claims, NetworkAddress, claims_of_state,
    },
    agent::{
        drain::drained_backends,
        flow_gc::DepartedBackends,
        status::{FlowTableStatus, HealthByBackend, SnatUsage},
    },
    bpf::{loader::Program, maps::Maps},
    compile::{
        capacity::CapacityError, compile_cache::CompileCache, dirty::DirtyObjects,
        draining::Draining, map_snapshot::MapSnapshot, observed::Observed, plan::AddressChanges,
    },
    config::Config,
    events::{event_log::EventLog, idempotency::IdempotencyCache, webhook_queue::WebhookQueue},
    host::{
        dirty_set::HostDirtySet, next_hops::NextHopResolver, status::HostStatus,
        traffic::AttachmentTraffic,
    },
    model::{
        HostUses, RandomIdentifiers, Reference, State, event_id::EventClock, operations::Policy,
    },
    store::{Store, StoreContents},
};

pub use commit::ChangeOutcome;
pub use restore::{RestoreOptions, restore_problem};

/// Desired state, observed state and the data path, and the operations on them.
pub struct Controller {
    pub(in crate::agent) desired: Desired,
    pub(in crate::agent) observed: Observations,
    pub(in crate::agent) datapath: Datapath,
}

/// Desired state, and what is committed to the store together with it.
pub(in crate::agent) struct Desired {
    /// Objects, equal to the store's.
    pub(in crate::agent) state: State,
    store: Box<dyn Store>,
    policy: Policy,
    identifiers: RandomIdentifiers,
    event_log: EventLog,
    /// Clock of event identifiers.
    event_clock: EventClock,
    webhook_queue: WebhookQueue,
    idempotency: IdempotencyCache,
}

/// Observed state of the host and the backends.
pub(in crate::agent) struct Observations {
    /// Observed state that the compiler uses.
    pub(in crate::agent) compiled: Observed,
    /// Observed state of the host, as shown to users.
    pub(in crate::agent) host: HostStatus,
    /// Next hops of backends.
    pub(in crate::agent) next_hops: NextHopResolver,
    /// Notified when the time of the next step of `next_hops` may have changed.
    pub(in crate::agent) next_hops_stepped: Arc<Notify>,
    /// Uses that the host makes of its interfaces, as of the last scan for a change of a network.
    pub(in crate::agent) host_uses: HostUses,
    /// Parts of the host that are to be scanned again.
    pub(in crate::agent) host_dirty: HostDirtySet,
    pub(in crate::agent) backend_health: HealthByBackend,
    /// Services whose list of checked backends is to be determined again.
    pub(in crate::agent) services_to_recheck: BTreeSet<Reference>,
    /// Services whose availability is to be determined again.
    pub(in crate::agent) services_to_assess: BTreeSet<Reference>,
    /// Address conflict detection for addresses of endpoints and of SNAT.
    pub(in crate::agent) conflict_detector: AddressConflictDetector,
    /// Networks whose interface came back or changed: the link may have forgotten their multicast memberships.
    pub(in crate::agent) returned_networks: BTreeSet<Reference>,
    /// SNAT addresses in use that no service has any more, until the next reconciliation decides if they drain.
    leaving_addresses: Vec<NetworkAddress>,
    /// Usage of SNAT addresses, by network number and address.
    snat_usage: BTreeMap<(u32, IpAddr), SnatUsage>,
    /// Traffic of attachments' interfaces, by name. `None` before the first reading.
    traffic: Option<BTreeMap<String, AttachmentTraffic>>,
    /// Flows of each backend, by the number of its resource and its address.
    backend_flows: HashMap<(u32, IpAddr), u64>,
    /// Usage of the flow tables: IPv4, IPv6.
    flow_tables: [FlowTableStatus; 2],
}

/// The data path, and the entries that its maps should hold.
pub(in crate::agent) struct Datapath {
    pub(in crate::agent) maps: Maps,
    /// XDP program and its attachments.
    pub(in crate::agent) program: Program,
    /// Map entries that the present state compiles to, with the objects that they come from.
    compile_cache: CompileCache,
    /// Contents of the maps.
    map_snapshot: MapSnapshot,
    /// Objects that are to be compiled again.
    dirty_objects: DirtyObjects,
    /// True if the maps may differ from the compile cache, so that everything is compiled again.
    needs_full_resync: bool,
    /// True if the maps hold what desired and observed state say.
    in_sync: bool,
    /// Objects that did not fit into the maps.
    capacity_errors: Vec<CapacityError>,
    departed_backends: DepartedBackends,
    /// Changes of the local addresses since the last [`Controller::take_address_changes`].
    address_changes: AddressChanges,
    /// SNAT addresses that no service has any more, but that open flows still use.
    draining: Draining,
    /// Notified when flows may have been revoked.
    flows_revoked: Arc<Notify>,
}

impl Controller {
    /// Creates the controller, and reads the present contents of `maps`.
    ///
    /// # Errors
    /// When the maps can't be read.
    pub fn new(
        loaded: StoreContents,
        store: Box<dyn Store>,
        config: &Config,
        program: Program,
        maps: Maps,
    ) -> Result<Self> {
        let desired = Desired::new(loaded, store, config);
        let datapath = Datapath::new(program, maps)?;
        let mut conflict_detector = AddressConflictDetector::new(config.probing);
        conflict_detector.adopt_in_use(claims_in_use(&desired.state, &datapath.map_snapshot));
        let observed = Observations {
            compiled: Observed {
                drained: drained_backends(
                    &desired.state,
                    desired.state.services.keys(),
                    Timestamp::now(),
                ),
                ..Observed::default()
            },
            host: HostStatus::default(),
            next_hops: NextHopResolver::new(next_hops::former_next_hops(
                &desired.state,
                &datapath.map_snapshot,
            )),
            next_hops_stepped: Arc::new(Notify::new()),
            host_uses: HostUses::default(),
            host_dirty: HostDirtySet::resync_all(),
            backend_health: HealthByBackend::new(),
            services_to_recheck: desired.state.services.keys().cloned().collect(),
            services_to_assess: BTreeSet::new(),
            conflict_detector,
            returned_networks: BTreeSet::new(),
            leaving_addresses: Vec::new(),
            snat_usage: BTreeMap::new(),
            traffic: None,
            backend_flows: HashMap::new(),
            flow_tables: [FlowTableStatus::default(); 2],
        };
        Ok(Self {
            desired,
            observed,
            datapath,
        })
    }
}

impl Desired {
    fn new(loaded: StoreContents, store: Box<dyn Store>, config: &Config) -> Self {
        let event_log = EventLog::new(loaded.events, &loaded.state, config.event_retention);
        Self {
            state: loaded.state,
            store,
            policy: config.policy.clone(),
            identifiers: RandomIdentifiers,
            event_clock: EventClock::new(event_log.last()),
            event_log,
            webhook_queue: WebhookQueue::new(loaded.cursors),
            idempotency: IdempotencyCache::new(loaded.idempotency_records),
        }
    }
}

impl Datapath {
    fn new(program: Program, maps: Maps) -> Result<Self> {
        Ok(Self {
            map_snapshot: maps.read_snapshot()?,
            maps,
            program,
            compile_cache: CompileCache::default(),
            dirty_objects: DirtyObjects::default(),
            needs_full_resync: true,
            in_sync: false,
            capacity_errors: Vec::new(),
            departed_backends: HashMap::new(),
            address_changes: AddressChanges::default(),
            draining: Draining::default(),
            flows_revoked: Arc::new(Notify::new()),
        })
    }
}

/// Returns the addresses of endpoints and of SNAT that are in use in the maps.
fn claims_in_use(state: &State, snapshot: &MapSnapshot) -> Claims {
    let mut claims = claims_of_state(state);
    claims.retain(|(network, address), kind| {
        let Some(network) = state.networks.get(network) else {
            return false;
        };
        let key = AddressKey {
            network: network.object.number,
            address: IpAddress::from(*address),
        };
        let used_as = match kind {
            ClaimKind::Endpoint => LocalAddress::ENDPOINT,
            ClaimKind::Snat => LocalAddress::NAT,
        };
        let current = snapshot.addresses.get(&key);
        current.is_some_and(|current| current.kind == used_as)
    });
    claims
}
