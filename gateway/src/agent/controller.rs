//! The controller: decides changes, commits them to the store, and reconciles the maps with desired and observed
//! state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use gateway_common::{
    IpAddress,
    maps::{AddressKey, LocalAddress},
    packet::Mac,
};
use jiff::Timestamp;
use log::{error, info, warn};
use tokio::sync::Notify;

use crate::{
    address_conflict::{self, AddressConflictDetector},
    agent::{
        connection_index::{ConnectionDelta, ConnectionIndex},
        host::HostStatus,
        tasks::{flow_gc::SnatUsage, health_check::HealthByBackend},
    },
    bpf::{loader::Program, maps::Maps},
    compile::{
        capacity::CapacityError,
        compile_cache::{CompileCache, Delta},
        dirty::DirtyObjects,
        map_snapshot::MapSnapshot,
        observed::{BackendKey, HealthCheckKey, Interface, NextHop, Observed},
        plan::plan,
    },
    config::Config,
    events::{
        event_log::EventLog,
        idempotency::{IdempotencyCache, IdempotencyKey},
        webhook_queue::{Delivery, DueDeliveries, WebhookQueue},
    },
    host::dirty_set::HostDirtySet,
    model::{
        Change, Endpoint, HostAddresses, Object, OpContext, Principal, Problem, ProblemCode,
        RandomIdentifiers, Reference, State,
        authorization::authorize,
        event::{StoredEvent, events_for_changes},
        event_id::{EventClock, EventId},
        identity::Authority,
        operations::Policy,
        tenant_size,
    },
    store::{self, IdempotencyRecord, Store, StoreContents, StoreError},
};

/// Outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeOutcome {
    /// True if anything was changed, by this request or by the one that it repeats.
    pub changed: bool,
    /// True if the outcome is in force only after a refresh of the host.
    pub needs_host_refresh: bool,
}

/// Desired state, observed state and the data path, and the operations on them.
pub struct Controller {
    /// Desired state, equal to the store.
    pub state: State,
    /// Maps of the data path.
    pub maps: Maps,
    /// XDP program and its attachments.
    pub program: Program,
    /// Observed state of the host, as shown to users.
    pub host: HostStatus,
    /// Observed state of the host, as compiled.
    pub(super) observed: Observed,
    /// Parts of the host that are to be scanned again.
    pub(super) host_dirty: HostDirtySet,
    /// Map entries that the present state compiles to, with the objects that they come from.
    compile_cache: CompileCache,
    /// Generation and timeouts by connection, for flow GC.
    connection_index: ConnectionIndex,
    /// Objects that are to be compiled again.
    dirty_objects: DirtyObjects,
    /// True if the maps may differ from the compile cache, so that everything is compiled again.
    pub(super) needs_full_resync: bool,
    /// Address conflict detection for endpoints' addresses.
    pub conflict_detector: AddressConflictDetector,
    /// Health of the backends that are checked.
    pub backend_health: HealthByBackend,
    /// Services whose list of checked backends is to be determined again.
    pub(super) services_to_recheck: BTreeSet<Reference>,
    /// Usage of SNAT addresses, by network number and address.
    pub snat_usage: BTreeMap<(u32, IpAddr), SnatUsage>,
    /// Notified when flows may have been revoked.
    pub flows_revoked: Arc<Notify>,
    /// Recent events.
    pub event_log: EventLog,
    /// Clock of event identifiers.
    pub(super) event_clock: EventClock,
    /// Delivery progress of webhooks.
    pub webhook_queue: WebhookQueue,
    pub(super) idempotency: IdempotencyCache,
    pub(super) store: Box<dyn Store>,
    policy: Policy,
    pub(super) identifiers: RandomIdentifiers,
    /// Contents of the maps.
    map_snapshot: MapSnapshot,
    /// Objects that did not fit into the maps.
    capacity_errors: Vec<CapacityError>,
    /// True if the maps hold what desired and observed state say.
    in_sync: bool,
    /// Next hops (egress slot and MAC address) of backends that have left their slot, by slot and generation.
    departed_backends: HashMap<(u32, u32), (u32, Mac)>,
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
        let state = loaded.state;
        let event_log = EventLog::new(loaded.events, &state, config.event_retention);
        let map_snapshot = maps.read_snapshot()?;
        let mut conflict_detector = AddressConflictDetector::new(config.probing);
        conflict_detector.adopt_in_use(addresses_in_use(&state, &map_snapshot));
        Ok(Self {
            conflict_detector,
            backend_health: HealthByBackend::new(),
            services_to_recheck: state.services.keys().cloned().collect(),
            snat_usage: BTreeMap::new(),
            flows_revoked: Arc::new(Notify::new()),
            departed_backends: HashMap::new(),
            state,
            maps,
            program,
            host: HostStatus::default(),
            observed: Observed::default(),
            host_dirty: HostDirtySet::resync_all(),
            compile_cache: CompileCache::default(),
            connection_index: ConnectionIndex::default(),
            dirty_objects: DirtyObjects::default(),
            needs_full_resync: true,
            event_clock: EventClock::new(event_log.last()),
            event_log,
            webhook_queue: WebhookQueue::new(loaded.cursors),
            idempotency: IdempotencyCache::new(loaded.idempotency_records),
            store,
            policy: config.policy.clone(),
            identifiers: RandomIdentifiers,
            map_snapshot,
            capacity_errors: Vec::new(),
            in_sync: false,
        })
    }

    /// Carries out an operation: authorizes its changes, commits them to the store, and reconciles the maps. When this
    /// returns, packets are handled accordingly, except for what needs a refresh of the host. With an idempotency key,
    /// a repeated request is not carried out again.
    ///
    /// # Errors
    /// The operation's problem, with nothing changed; a key that was used by another request; or a failure of the
    /// store or the kernel.
    pub fn change(
        &mut self,
        principal: &Principal,
        idempotency_key: Option<IdempotencyKey>,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<ChangeOutcome, Problem> {
        if let Some(idempotency_key) = &idempotency_key
            && self.idempotency.is_replay(idempotency_key, &self.state)?
        {
            // The original request may be waiting for a refresh of the host still.
            return Ok(ChangeOutcome {
                changed: true,
                needs_host_refresh: true,
            });
        }
        let now = Timestamp::now();
        let mut context = OpContext {
            now,
            actor: &principal.name,
            identifiers: &mut self.identifiers,
            host: &self.observed.host,
        };
        let changes = operation(&self.state, &mut context, &self.policy)?;
        authorize(&self.state, &changes, principal)?;
        if changes.is_empty() {
            return Ok(ChangeOutcome {
                changed: false,
                needs_host_refresh: false,
            });
        }
        tenant_size::check_tenant_sizes(&self.state, &changes)?;
        let ticks = self.event_clock.next_ticks();
        let events = events_for_changes(
            &self.state,
            &changes,
            principal,
            now,
            ticks,
            &mut self.identifiers,
        );
        let record = idempotency_key.and_then(|idempotency_key| {
            let object = changes.iter().find_map(|change| match change {
                Change::Put(object) => Some(object),
                Change::Delete(_) => None,
            })?;
            let record = IdempotencyCache::new_record(&idempotency_key, object, now);
            Some((idempotency_key, record))
        });
        let revision = self
            .commit(&changes, &events, record.as_ref())
            .map_err(store_problem)?;
        for change in &changes {
            let done = match change {
                Change::Put(_) => "put",
                Change::Delete(_) => "deleted",
            };
            let Principal { name, from, .. } = principal;
            info!(
                "controller: object {done} key={} revision={revision} actor={name:?} from={from}",
                change.object().key()
            );
        }
        for webhook in deleted_webhooks(&changes) {
            self.webhook_queue.remove(&webhook);
        }
        for webhook in self.webhook_queue.unsaved() {
            self.webhook_queue.cursor_written(&webhook, revision);
        }
        let losses = self.event_log.append(events, revision);
        for change in &changes {
            if let Change::Delete(Object::Tenant(record)) = change {
                self.event_log.remove_tenant(&record.meta.name);
            }
        }
        if let Some((idempotency_key, record)) = record {
            self.idempotency.append(idempotency_key, record, revision);
        }
        self.dirty_objects.add_changes(&self.state, &changes);
        let mut host_dirty = HostDirtySet::default();
        host_dirty.add_changes(&self.state, &changes);
        let needs_host_refresh = !host_dirty.is_empty();
        self.host_dirty.merge(host_dirty);
        self.services_to_recheck.extend(changed_services(&changes));
        self.track_endpoint_addresses(&changes);
        let delta = ConnectionDelta::from_changes(&changes);
        let interfaces_moved = changes
            .iter()
            .any(|change| matches!(change.object(), Object::Network(..)));
        self.state.apply(changes, revision);
        if interfaces_moved {
            self.observed
                .mark_host_address_users(&self.state, &mut self.dirty_objects);
        }
        self.webhook_queue.record_evictions(&self.state, &losses);
        self.connection_index.apply(&self.state, delta);
        self.reconcile().map_err(|error| {
            error!("controller: change not in the maps yet error=\"{error:#}\"");
            Problem::new(
                ProblemCode::Internal,
                "the change is stored, but writing it to the data path failed, and is tried again: \
                 see the agent's log",
            )
        })?;
        Ok(ChangeOutcome {
            changed: true,
            needs_host_refresh,
        })
    }

    fn commit(
        &mut self,
        changes: &[Change],
        events: &[StoredEvent],
        record: Option<&(IdempotencyKey, IdempotencyRecord)>,
    ) -> Result<u64, StoreError> {
        let mut writes = store::writes_for_changes(changes)?;
        writes.extend(self.event_log.writes(events)?);
        if let Some((idempotency_key, record)) = record {
            writes.extend(self.idempotency.writes(idempotency_key, record)?);
        }
        let mut unsaved = self.webhook_queue.unsaved();
        for webhook in deleted_webhooks(changes) {
            writes.extend(self.webhook_queue.cursor_delete(&webhook));
            unsaved.retain(|other| *other != webhook);
        }
        for webhook in unsaved {
            writes.extend(self.webhook_queue.cursor_write(&webhook));
        }
        self.store.commit(&writes)
    }

    /// Merges the store's write-ahead log into its file, before the process ends.
    pub fn checkpoint(&self) {
        if let Err(error) = self.store.checkpoint() {
            warn!("store: checkpoint failed error=\"{error}\"");
        }
    }

    /// Returns an identifier that sorts before all future events. It reveals nothing but the time.
    pub fn event_boundary(&mut self) -> EventId {
        EventId::new(self.event_clock.next_ticks(), 0)
    }

    /// Returns the webhook deliveries that are due.
    pub fn due_deliveries(&mut self, now: Instant) -> DueDeliveries {
        self.webhook_queue
            .take_due(&self.state, &self.event_log, now)
    }

    /// Records the outcome of a delivery.
    ///
    /// # Errors
    /// When the store can't be written: after a restart, the event may be delivered once more.
    pub fn record_delivery(
        &mut self,
        delivery: &Delivery,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Result<(), StoreError> {
        if !self.webhook_queue.record_outcome(delivery, outcome, now) {
            return Ok(());
        }
        if let Some(write) = self.webhook_queue.cursor_write(&delivery.reference) {
            let revision = self.store.commit(&[write])?;
            self.webhook_queue
                .cursor_written(&delivery.reference, revision);
        }
        Ok(())
    }

    /// Returns the observed state of the host, as compiled.
    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Records the state of an interface; `None` if it can't carry packets.
    pub(super) fn observe_interface(&mut self, name: &str, seen: Option<Interface>) {
        self.observed
            .observe_interface(name, seen, &self.state, &mut self.dirty_objects);
    }

    /// Records the host's own addresses.
    pub(super) fn observe_host_addresses(&mut self, seen: HostAddresses) {
        let count_dirty = |scope: &DirtyObjects| scope.endpoints.len() + scope.services.len();
        let before = count_dirty(&self.dirty_objects);
        self.observed
            .observe_host_addresses(seen, &self.state, &mut self.dirty_objects);
        let dirty = count_dirty(&self.dirty_objects) - before;
        if dirty > 0 {
            warn!(
                "host: addresses of tenants' objects added to or removed from the host services_and_endpoints={dirty}"
            );
        }
    }

    /// Records the next hop of a backend; `None` if it can't be reached.
    pub(super) fn observe_next_hop(&mut self, key: &BackendKey, seen: Option<NextHop>) {
        self.observed
            .observe_next_hop(key, seen, &self.state, &mut self.dirty_objects);
    }

    /// Records if a backend fails its health checks.
    pub(super) fn observe_health(&mut self, key: &HealthCheckKey, unhealthy: bool) {
        self.observed
            .observe_health(key, unhealthy, &mut self.dirty_objects);
    }

    /// Returns generation and timeouts by connection.
    #[must_use]
    pub const fn connection_index(&self) -> &ConnectionIndex {
        &self.connection_index
    }

    /// Adds and removes endpoints' addresses for conflict detection. The state is still the one before the changes.
    fn track_endpoint_addresses(&mut self, changes: &[Change]) {
        for change in changes {
            if let Object::Network(..) = change.object() {
                // The network may have another interface now.
                self.conflict_detector
                    .retry_parked(&change.object().reference());
            }
            let Object::Endpoint(tenant, record) = change.object() else {
                continue;
            };
            let keys = |endpoint: &Endpoint| -> Vec<address_conflict::NetworkAddress> {
                let network = Reference::new(tenant.clone(), endpoint.network.clone());
                let addresses = endpoint.addresses.iter();
                addresses.map(|a| (network.clone(), *a)).collect()
            };
            let old = self.state.endpoints.get(&change.object().reference());
            let old = old.map(|old| keys(&old.object)).unwrap_or_default();
            let new = match change {
                Change::Put(_) => keys(&record.object),
                Change::Delete(_) => Vec::new(),
            };
            for key in old.iter().filter(|key| !new.contains(key)) {
                self.conflict_detector.remove(key);
            }
            for key in new {
                self.conflict_detector.add(key);
            }
        }
    }

    /// Compiles what may have changed of desired and observed state, and writes the difference to the maps.
    ///
    /// # Errors
    /// When the kernel refuses a write. Writes that were made stay, and the next call compiles everything again.
    pub fn reconcile(&mut self) -> Result<()> {
        if self.needs_full_resync {
            self.conflict_detector.retain_existing(&self.state);
            self.connection_index = ConnectionIndex::from_state(&self.state);
        }
        let mut dirty = std::mem::take(&mut self.dirty_objects);
        for key in self.conflict_detector.take_changed() {
            let tentative = self.conflict_detector.is_tentative(&key);
            self.observed
                .observe_tentative(&key, tentative, &self.state, &mut dirty);
        }
        let rebuilt = self.needs_full_resync;
        if !rebuilt && dirty.is_empty() {
            return Ok(());
        }
        // Reset below, when the plan has been applied.
        self.needs_full_resync = true;
        self.in_sync = false;
        let (state, observed) = (&self.state, &self.observed);
        let delta = if rebuilt {
            self.compile_cache
                .rebuild(state, observed, &self.map_snapshot)
        } else {
            self.compile_cache
                .update(state, observed, &self.map_snapshot, dirty)
        };
        let capacity_errors: Vec<CapacityError> =
            self.compile_cache.capacity_errors().cloned().collect();
        if capacity_errors != self.capacity_errors {
            for error in &capacity_errors {
                warn!("compile: map full error=\"{error}\"");
            }
            self.capacity_errors = capacity_errors;
        }
        let plan = plan(&delta.old, &delta.new);
        if !plan.is_empty() {
            log::debug!("controller: applying plan writes={}", plan.len());
            self.record_departed(&delta);
            let ends_flows = !plan.revoke.is_empty() || plan.removes_backends(&self.map_snapshot);
            self.maps.apply_plan(&plan, &mut self.map_snapshot)?;
            if ends_flows || !self.departed_backends.is_empty() {
                self.flows_revoked.notify_one();
            }
        }
        if rebuilt {
            self.compile_cache.commit_rebuilt_allocations();
        } else {
            self.compile_cache.commit_allocations();
        }
        self.needs_full_resync = false;
        self.in_sync = true;
        Ok(())
    }

    /// Records the next hops of backends that leave their slots, so that flow GC can send them resets for their flows.
    fn record_departed(&mut self, delta: &Delta) {
        for (slot, backend) in &delta.old.backends {
            let is_kept = delta
                .new
                .backends
                .get(slot)
                .is_some_and(|now| now.generation == backend.generation && now.resource != 0);
            if backend.resource != 0 && backend.reachable != 0 && !is_kept {
                let key = (*slot, backend.generation);
                self.departed_backends
                    .insert(key, (backend.egress_slot, backend.mac.mac()));
            }
        }
    }

    /// Returns the next hops of backends that have left their slot, by slot and generation.
    #[must_use]
    pub const fn departed_backends(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.departed_backends
    }

    /// Forgets departed backends whose flows have been terminated.
    pub fn drop_departed(&mut self, notified: &HashMap<(u32, u32), (u32, Mac)>) {
        self.departed_backends
            .retain(|key, _| !notified.contains_key(key));
    }

    /// Returns true if the maps hold what desired and observed state say.
    #[must_use]
    pub const fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// Returns the objects that did not fit into the maps.
    #[must_use]
    pub fn capacity_errors(&self) -> &[CapacityError] {
        &self.capacity_errors
    }

    /// Returns the contents of the maps.
    #[must_use]
    pub const fn map_snapshot(&self) -> &MapSnapshot {
        &self.map_snapshot
    }

    /// Sets the authorities whose client certificates are accepted.
    pub fn set_authorities(&mut self, authorities: Vec<Authority>) {
        self.policy.authorities = authorities;
    }

    /// Returns the configured policy that operations depend on.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }
}

fn changed_services(changes: &[Change]) -> impl Iterator<Item = Reference> {
    changes.iter().filter_map(|change| match change.object() {
        object @ Object::Service(..) => Some(object.reference()),
        _ => None,
    })
}

fn deleted_webhooks(changes: &[Change]) -> impl Iterator<Item = Reference> {
    changes.iter().filter_map(|change| match change {
        Change::Delete(object @ Object::Webhook(..)) => Some(object.reference()),
        _ => None,
    })
}

/// Returns the endpoints' addresses that the maps already contain.
fn addresses_in_use(
    state: &State,
    snapshot: &MapSnapshot,
) -> Vec<address_conflict::NetworkAddress> {
    let mut keys = Vec::new();
    for (reference, record) in &state.endpoints {
        let network = Reference::new(reference.tenant.clone(), record.object.network.clone());
        let Some(network_record) = state.networks.get(&network) else {
            continue;
        };
        for address in &record.object.addresses {
            let key = AddressKey {
                network: network_record.object.number,
                address: IpAddress::from(*address),
            };
            let current = snapshot.addresses.get(&key);
            if current.is_some_and(|there| there.kind == LocalAddress::ENDPOINT) {
                keys.push((network.clone(), *address));
            }
        }
    }
    keys
}

/// Returns the problem for a failure of the store, and logs it unless it is a conflict of versions.
pub(super) fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict(_) => Problem::new(ProblemCode::VersionConflict, error.to_string()),
        error => {
            error!("store: failed error=\"{error}\"");
            Problem::new(
                ProblemCode::StoreUnavailable,
                format!("nothing was changed: {error}"),
            )
        }
    }
}
