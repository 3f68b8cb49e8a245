//! State, store and maps together: the one place where a change is decided, written down, and
//! carried out.

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
        compile_cache::{CompileCache, Delta},
        compiler::CapacityError,
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
        limits,
        operations::Policy,
    },
    store::{self, IdempotencyRecord, Store, StoreContents, StoreError},
};

/// What the agent has in hand.
pub struct Controller {
    /// What users asked for, as the store has it.
    pub state: State,
    /// The kernel's maps.
    pub maps: Maps,
    /// The program and its links.
    pub program: Program,
    /// What was observed of the host, for users.
    pub host: HostStatus,
    /// What was observed of the host, for the compiler.
    pub(super) observed: Observed,
    /// What of the host is to be looked at again.
    pub(super) host_dirty: HostDirtySet,
    /// What the maps should hold, and whose it is.
    compile_cache: CompileCache,
    /// How connections stand, for the sweep.
    connection_index: ConnectionIndex,
    /// What is to be compiled.
    dirty_objects: DirtyObjects,
    /// Whether the maps may hold what was not compiled.
    pub(super) needs_full_resync: bool,
    /// Whether endpoints' addresses are free to be used.
    pub conflict_detector: AddressConflictDetector,
    /// How backends do that are checked.
    pub backend_health: HealthByBackend,
    /// Services of which it is to be looked anew what is to be checked.
    pub(super) services_to_recheck: BTreeSet<Reference>,
    /// What source NAT addresses carry, by network number and address.
    pub snat_usage: BTreeMap<(u32, IpAddr), SnatUsage>,
    /// Told when flows may have been cut.
    pub flows_revoked: Arc<Notify>,
    /// The events of late.
    pub event_log: EventLog,
    /// The clock of events.
    pub(super) event_clock: EventClock,
    /// How far webhooks have been told.
    pub webhook_queue: WebhookQueue,
    pub(super) idempotency: IdempotencyCache,
    pub(super) store: Box<dyn Store>,
    policy: Policy,
    pub(super) identifiers: RandomIdentifiers,
    /// What the maps hold.
    map_snapshot: MapSnapshot,
    /// What found no place in the maps.
    capacity_errors: Vec<CapacityError>,
    /// Whether the maps hold what they should.
    in_sync: bool,
    /// The way to backends that have left their slot, by slot and generation.
    departed_backends: HashMap<(u32, u32), (u32, Mac)>,
}

impl Controller {
    /// Puts the parts together; `maps` are read for what they hold.
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

    /// Decides about a request, stores the outcome, and carries it out in the maps. When this
    /// returns, packets are handled accordingly. Says whether anything was changed.
    ///
    /// # Errors
    /// The operation's refusal, nothing having changed; or that the store or the kernel failed.
    pub fn change(
        &mut self,
        principal: &Principal,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<bool, Problem> {
        self.change_idempotent(principal, None, operation)
    }

    /// The same, but once for each attempt's key.
    ///
    /// # Errors
    /// As for [`Self::change`], and that the key came with another request.
    pub fn change_idempotent(
        &mut self,
        principal: &Principal,
        idempotency_key: Option<IdempotencyKey>,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<bool, Problem> {
        if let Some(idempotency_key) = &idempotency_key
            && self.idempotency.is_replay(idempotency_key, &self.state)?
        {
            return Ok(true);
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
            return Ok(false);
        }
        limits::check_tenants(&self.state, &changes)?;
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
                Change::Put(_) => "wrote",
                Change::Delete(_) => "deleted",
            };
            let Principal { name, from, .. } = principal;
            info!(
                "{name} ({from}) {done} {} at {revision}",
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
        self.host_dirty.add_changes(&self.state, &changes);
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
            error!("the kernel did not take a change: {error:#}");
            Problem::new(
                ProblemCode::Internal,
                "the change is stored, but the kernel did not take it, and it is being tried again: \
                 the agent's log has the details",
            )
        })?;
        Ok(true)
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

    /// Leaves the store as one file, before the program ends.
    pub fn checkpoint(&self) {
        if let Err(error) = self.store.checkpoint() {
            warn!("the store is left as it is: {error}");
        }
    }

    /// Returns an identifier that is before all events that are still to come. It tells nothing but the time.
    pub fn event_boundary(&mut self) -> EventId {
        EventId::new(self.event_clock.next_ticks(), 0)
    }

    /// What webhooks are to be told now.
    pub fn due_deliveries(&mut self, now: Instant) -> DueDeliveries {
        self.webhook_queue
            .take_due(&self.state, &self.event_log, now)
    }

    /// Takes in how telling one went.
    ///
    /// # Errors
    /// When the store does not take it: after a restart it may be told once more.
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

    /// What was observed of the host.
    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Takes in how an interface is: none if it can't carry packets.
    pub(super) fn observe_interface(&mut self, name: &str, seen: Option<Interface>) {
        self.observed
            .observe_interface(name, seen, &self.state, &mut self.dirty_objects);
    }

    /// Takes in which addresses the host has.
    pub(super) fn observe_host_addresses(&mut self, seen: HostAddresses) {
        let count_dirty = |scope: &DirtyObjects| scope.endpoints.len() + scope.services.len();
        let before = count_dirty(&self.dirty_objects);
        self.observed
            .observe_host_addresses(seen, &self.state, &mut self.dirty_objects);
        let dirty = count_dirty(&self.dirty_objects) - before;
        if dirty > 0 {
            warn!(
                "host: addresses that tenants have came to the host or left it, services and endpoints={dirty}"
            );
        }
    }

    /// Takes in where a backend is: none if it can't be reached.
    pub(super) fn observe_next_hop(&mut self, key: &BackendKey, seen: Option<NextHop>) {
        self.observed
            .observe_next_hop(key, seen, &self.state, &mut self.dirty_objects);
    }

    /// Takes in whether a backend fails its health checks.
    pub(super) fn observe_health(&mut self, key: &HealthCheckKey, unhealthy: bool) {
        self.observed
            .observe_health(key, unhealthy, &mut self.dirty_objects);
    }

    /// How connections stand.
    #[must_use]
    pub const fn connection_index(&self) -> &ConnectionIndex {
        &self.connection_index
    }

    /// Takes in which addresses there are after changes of the state, which is as it was before them.
    fn track_endpoint_addresses(&mut self, changes: &[Change]) {
        for change in changes {
            if let Object::Network(..) = change.object() {
                // It may have another interface now.
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

    /// Makes the maps hold what the state and the host say, as far as that may have changed.
    ///
    /// # Errors
    /// When the kernel refuses a write. What was written stays, and the next call goes on.
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
        // Until it is carried out.
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
                warn!("{error}");
            }
            self.capacity_errors = capacity_errors;
        }
        let plan = plan(&delta.old, &delta.new);
        if !plan.is_empty() {
            log::debug!("{} writes into the maps", plan.len());
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

    /// Keeps in mind where backends are that leave their slots: they are to be told that their
    /// connections are over.
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

    /// The way to backends that have left their slot, by slot and generation.
    #[must_use]
    pub const fn departed_backends(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.departed_backends
    }

    /// Those whose flows have been told are forgotten.
    pub fn drop_departed(&mut self, notified: &HashMap<(u32, u32), (u32, Mac)>) {
        self.departed_backends
            .retain(|key, _| !notified.contains_key(key));
    }

    /// Whether the maps hold what they should.
    #[must_use]
    pub const fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// What found no place in the maps.
    #[must_use]
    pub fn capacity_errors(&self) -> &[CapacityError] {
        &self.capacity_errors
    }

    /// What the maps hold.
    #[must_use]
    pub const fn map_snapshot(&self) -> &MapSnapshot {
        &self.map_snapshot
    }

    /// Takes in which authorities' client certificates are accepted.
    pub fn set_authorities(&mut self, authorities: Vec<Authority>) {
        self.policy.authorities = authorities;
    }

    /// What operations depend on.
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

/// The addresses of endpoints that the maps have in use.
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

/// A store's failure, for the one who asked.
pub(super) fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict(_) => Problem::new(ProblemCode::VersionConflict, error.to_string()),
        error => {
            error!("{error}");
            Problem::new(
                ProblemCode::StoreUnavailable,
                format!("nothing was changed: {error}"),
            )
        }
    }
}
