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
    maps::{Address, AddressKey},
    packet::Mac,
};
use jiff::Timestamp;
use log::{error, info, warn};
use tokio::sync::Notify;

use crate::{
    agent::{
        deliveries::{Deliveries, Delivery, Turn},
        detection::{self, Detection},
        health::Healths,
        host::HostStatus,
        journal::Journal,
        requests::{Attempt, Requests},
        sight::Sight,
        standings::{Standings, Turned},
        sweep::NatUse,
    },
    config::Config,
    dataplane::{
        compile::NoRoom,
        compiled::{Compiled, Parts},
        contents::Contents,
        maps::Maps,
        observed::{BackendKey, CheckedKey, Interface, NextHop, Observed},
        plan::plan,
        program::Program,
        scope::Scope,
    },
    model::{
        Change, Code, Context, Endpoint, HostAddresses, Object, Principal, Problem,
        RandomIdentifiers, Reference, State,
        authorization::authorize,
        event::{Recorded, events},
        event_id::{EventClock, EventId},
        identity::Authority,
        limits,
        operations::Policy,
    },
    store::{self, Loaded, Once, Store, StoreError},
};

/// What the agent has in hand.
pub struct Core {
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
    pub(super) sight: Sight,
    /// What the maps should hold, and whose it is.
    compiled: Compiled,
    /// How connections stand, for the sweep.
    standings: Standings,
    /// What is to be compiled.
    scope: Scope,
    /// Whether the maps may hold what was not compiled.
    pub(super) stale: bool,
    /// Whether endpoints' addresses are free to be used.
    pub detection: Detection,
    /// How backends do that are checked.
    pub healths: Healths,
    /// Services of which it is to be looked anew what is to be checked.
    pub(super) uninspected: BTreeSet<Reference>,
    /// What source NAT addresses carry, by network number and address.
    pub nat_use: BTreeMap<(u32, IpAddr), NatUse>,
    /// Told when flows may have been cut.
    pub cut: Arc<Notify>,
    /// The events of late.
    pub journal: Journal,
    /// The clock of events.
    pub(super) event_clock: EventClock,
    /// How far webhooks have been told.
    pub deliveries: Deliveries,
    pub(super) requests: Requests,
    pub(super) store: Box<dyn Store>,
    policy: Policy,
    pub(super) identifiers: RandomIdentifiers,
    /// What the maps hold.
    current: Contents,
    /// What found no place in the maps.
    no_room: Vec<NoRoom>,
    /// Whether the maps hold what they should.
    in_step: bool,
    /// The way to backends that have left their slot, by slot and generation.
    left_backends: HashMap<(u32, u32), (u32, Mac)>,
}

impl Core {
    /// Puts the parts together; `maps` are read for what they hold.
    ///
    /// # Errors
    /// When the maps can't be read.
    pub fn new(
        loaded: Loaded,
        store: Box<dyn Store>,
        config: &Config,
        program: Program,
        maps: Maps,
    ) -> Result<Self> {
        let state = loaded.state;
        let journal = Journal::new(loaded.events, &state, config.events_kept);
        let current = maps.read()?;
        let mut detection = Detection::new(config.probing);
        detection.adopt(in_use(&state, &current));
        Ok(Self {
            detection,
            healths: Healths::new(),
            uninspected: state.services.keys().cloned().collect(),
            nat_use: BTreeMap::new(),
            cut: Arc::new(Notify::new()),
            left_backends: HashMap::new(),
            state,
            maps,
            program,
            host: HostStatus::default(),
            observed: Observed::default(),
            sight: Sight::everything(),
            compiled: Compiled::default(),
            standings: Standings::default(),
            scope: Scope::default(),
            stale: true,
            event_clock: EventClock::new(journal.last()),
            journal,
            deliveries: Deliveries::new(loaded.cursors),
            requests: Requests::new(loaded.requests),
            store,
            policy: config.policy.clone(),
            identifiers: RandomIdentifiers,
            current,
            no_room: Vec::new(),
            in_step: false,
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
        operation: impl FnOnce(&State, &mut Context<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<bool, Problem> {
        self.change_once(principal, None, operation)
    }

    /// The same, but once for each attempt's key.
    ///
    /// # Errors
    /// As for [`Self::change`], and that the key came with another request.
    pub fn change_once(
        &mut self,
        principal: &Principal,
        attempt: Option<Attempt>,
        operation: impl FnOnce(&State, &mut Context<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<bool, Problem> {
        if let Some(attempt) = &attempt
            && self.requests.is_done(attempt, &self.state)?
        {
            return Ok(true);
        }
        let now = Timestamp::now();
        let mut context = Context {
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
        let ticks = self.event_clock.tick();
        let events = events(
            &self.state,
            &changes,
            principal,
            now,
            ticks,
            &mut self.identifiers,
        );
        let once = attempt.and_then(|attempt| {
            let object = changes.iter().find_map(|change| match change {
                Change::Put(object) => Some(object),
                Change::Delete(_) => None,
            })?;
            let once = Requests::remembered(&attempt, object, now);
            Some((attempt, once))
        });
        let revision = self
            .commit(&changes, &events, once.as_ref())
            .map_err(refusal)?;
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
            self.deliveries.forgotten(&webhook);
        }
        for webhook in self.deliveries.unsaved() {
            self.deliveries.written(&webhook, revision);
        }
        let losses = self.journal.append(events, revision);
        for change in &changes {
            if let Change::Delete(Object::Tenant(record)) = change {
                self.journal.forget_tenant(&record.meta.name);
            }
        }
        if let Some((attempt, once)) = once {
            self.requests.append(attempt, once, revision);
        }
        self.scope.add_changes(&self.state, &changes);
        self.sight.add_changes(&self.state, &changes);
        self.uninspected.extend(services(&changes));
        self.follow(&changes);
        let turned = Turned::of(&changes);
        let interfaces_moved = changes
            .iter()
            .any(|change| matches!(change.object(), Object::Network(..)));
        self.state.apply(changes, revision);
        if interfaces_moved {
            self.observed.interfaces_moved(&self.state, &mut self.scope);
        }
        self.deliveries.lose(&self.state, &losses);
        self.standings.take_in(&self.state, turned);
        self.reconcile().map_err(|error| {
            error!("the kernel did not take a change: {error:#}");
            Problem::new(
                Code::Internal,
                "the change is stored, but the kernel did not take it, and it is being tried again: \
                 the agent's log has the details",
            )
        })?;
        Ok(true)
    }

    fn commit(
        &mut self,
        changes: &[Change],
        events: &[Recorded],
        once: Option<&(Attempt, Once)>,
    ) -> Result<u64, StoreError> {
        let mut writes = store::writes(changes)?;
        writes.extend(self.journal.writes(events)?);
        if let Some((attempt, once)) = once {
            writes.extend(self.requests.writes(attempt, once)?);
        }
        let mut unsaved = self.deliveries.unsaved();
        for webhook in deleted_webhooks(changes) {
            writes.extend(self.deliveries.forget(&webhook));
            unsaved.retain(|other| *other != webhook);
        }
        for webhook in unsaved {
            writes.extend(self.deliveries.write(&webhook));
        }
        self.store.commit(&writes)
    }

    /// Leaves the store as one file, before the program ends.
    pub fn settle(&self) {
        if let Err(error) = self.store.settle() {
            warn!("the store is left as it is: {error}");
        }
    }

    /// Returns an identifier that is before all events that are still to come. It tells nothing but the time.
    pub fn no_event_yet(&mut self) -> EventId {
        EventId::new(self.event_clock.tick(), 0)
    }

    /// What webhooks are to be told now.
    pub fn due_deliveries(&mut self, now: Instant) -> Turn {
        self.deliveries.turn(&self.state, &self.journal, now)
    }

    /// Takes in how telling one went.
    ///
    /// # Errors
    /// When the store does not take it: after a restart it may be told once more.
    pub fn delivered(
        &mut self,
        delivery: &Delivery,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Result<(), StoreError> {
        if !self.deliveries.done(delivery, outcome, now) {
            return Ok(());
        }
        if let Some(write) = self.deliveries.write(&delivery.reference) {
            let revision = self.store.commit(&[write])?;
            self.deliveries.written(&delivery.reference, revision);
        }
        Ok(())
    }

    /// What was observed of the host.
    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Takes in how an interface is: none if it can't carry packets.
    pub(super) fn see_interface(&mut self, name: &str, seen: Option<Interface>) {
        self.observed
            .see_interface(name, seen, &self.state, &mut self.scope);
    }

    /// Takes in which addresses the host has.
    pub(super) fn see_host(&mut self, seen: HostAddresses) {
        let concerned = |scope: &Scope| scope.endpoints.len() + scope.services.len();
        let before = concerned(&self.scope);
        self.observed.see_host(seen, &self.state, &mut self.scope);
        let concerned = concerned(&self.scope) - before;
        if concerned > 0 {
            warn!(
                "host: addresses that tenants have came to the host or left it, services and endpoints={concerned}"
            );
        }
    }

    /// Takes in where a backend is: none if it can't be reached.
    pub(super) fn see_next_hop(&mut self, key: &BackendKey, seen: Option<NextHop>) {
        self.observed
            .see_next_hop(key, seen, &self.state, &mut self.scope);
    }

    /// Takes in whether a backend fails its health checks.
    pub(super) fn see_health(&mut self, key: &CheckedKey, unhealthy: bool) {
        self.observed.see_health(key, unhealthy, &mut self.scope);
    }

    /// How connections stand.
    #[must_use]
    pub const fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Takes in which addresses there are after changes of the state, which is as it was before them.
    fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            if let Object::Network(..) = change.object() {
                // It may have another interface now.
                self.detection.unpark(&change.object().reference());
            }
            let Object::Endpoint(tenant, record) = change.object() else {
                continue;
            };
            let keys = |endpoint: &Endpoint| -> Vec<detection::Key> {
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
                self.detection.forget(key);
            }
            for key in new {
                self.detection.add(key);
            }
        }
    }

    /// Makes the maps hold what the state and the host say, as far as that may have changed.
    ///
    /// # Errors
    /// When the kernel refuses a write. What was written stays, and the next call goes on.
    pub fn reconcile(&mut self) -> Result<()> {
        if self.stale {
            self.detection.follow(&self.state);
            self.standings = Standings::of(&self.state);
        }
        let mut scope = std::mem::take(&mut self.scope);
        for key in self.detection.take_turned() {
            let tentative = self.detection.is_tentative(&key);
            self.observed
                .see_tentative(&key, tentative, &self.state, &mut scope);
        }
        let rebuilt = self.stale;
        if !rebuilt && scope.is_empty() {
            return Ok(());
        }
        // Until it is carried out.
        self.stale = true;
        self.in_step = false;
        let (state, observed) = (&self.state, &self.observed);
        let parts = if rebuilt {
            self.compiled.rebuild(state, observed, &self.current)
        } else {
            self.compiled.update(state, observed, &self.current, scope)
        };
        let no_room: Vec<NoRoom> = self.compiled.no_room().cloned().collect();
        if no_room != self.no_room {
            for lack in &no_room {
                warn!("{lack}");
            }
            self.no_room = no_room;
        }
        let plan = plan(&parts.old, &parts.new);
        if !plan.is_empty() {
            log::debug!("{} writes into the maps", plan.len());
            self.note_leaving(&parts);
            let ends_flows = !plan.revoke.is_empty() || plan.ends_backends(&self.current);
            self.maps.write(&plan, &mut self.current)?;
            if ends_flows || !self.left_backends.is_empty() {
                self.cut.notify_one();
            }
        }
        if rebuilt {
            self.compiled.settle_rebuilt();
        } else {
            self.compiled.settle();
        }
        self.stale = false;
        self.in_step = true;
        Ok(())
    }

    /// Keeps in mind where backends are that leave their slots: they are to be told that their
    /// connections are over.
    fn note_leaving(&mut self, parts: &Parts) {
        for (slot, backend) in &parts.old.backends {
            let stays = parts
                .new
                .backends
                .get(slot)
                .is_some_and(|now| now.generation == backend.generation && now.resource != 0);
            if backend.resource != 0 && backend.reachable != 0 && !stays {
                let key = (*slot, backend.generation);
                self.left_backends
                    .insert(key, (backend.egress, backend.mac.mac()));
            }
        }
    }

    /// The way to backends that have left their slot, by slot and generation.
    #[must_use]
    pub const fn left_backends(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.left_backends
    }

    /// Those whose flows have been told are forgotten.
    pub fn forget_backends(&mut self, told: &HashMap<(u32, u32), (u32, Mac)>) {
        self.left_backends.retain(|key, _| !told.contains_key(key));
    }

    /// Whether the maps hold what they should.
    #[must_use]
    pub const fn in_step(&self) -> bool {
        self.in_step
    }

    /// What found no place in the maps.
    #[must_use]
    pub fn no_room(&self) -> &[NoRoom] {
        &self.no_room
    }

    /// What the maps hold.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.current
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

fn services(changes: &[Change]) -> impl Iterator<Item = Reference> {
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
fn in_use(state: &State, contents: &Contents) -> Vec<detection::Key> {
    let mut keys = Vec::new();
    for (reference, record) in &state.endpoints {
        let network = Reference::new(reference.tenant.clone(), record.object.network.clone());
        let Some(found) = state.networks.get(&network) else {
            continue;
        };
        for address in &record.object.addresses {
            let key = AddressKey {
                network: found.object.number,
                address: IpAddress::from(*address),
            };
            let there = contents.addresses.get(&key);
            if there.is_some_and(|there| there.kind == Address::ENDPOINT) {
                keys.push((network.clone(), *address));
            }
        }
    }
    keys
}

/// A store's failure, for the one who asked.
pub(super) fn refusal(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict(_) => Problem::new(Code::VersionConflict, error.to_string()),
        error => {
            error!("{error}");
            Problem::new(
                Code::StoreUnavailable,
                format!("nothing was changed: {error}"),
            )
        }
    }
}
