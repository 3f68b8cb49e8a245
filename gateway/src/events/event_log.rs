//! The event log: recent events, bounded by trails, in the store and in memory for readers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    model::{
        Access, Name, Principal, State,
        event::StoredEvent,
        event_id::EventId,
        event_retention::{ActorRelation, EventClass, select_retained},
        eviction_index::EvictionIndex,
    },
    store::{StoreError, Write, keys},
};

/// Event that is in at least one trail.
#[derive(Debug)]
struct LogEntry {
    recorded: Arc<StoredEvent>,
    /// Revision of the store at which the event was written.
    revision: u64,
    /// Number of trails that hold the event.
    trails: usize,
}

/// Events that one tenant sees, or that are kept for the operator.
#[derive(Debug, Default)]
struct Trail {
    events: BTreeSet<EventId>,
    rings: BTreeMap<(ActorRelation, EventClass), EvictionIndex<Option<Name>, EventId>>,
}

/// Event that was evicted from a tenant's trail to make room.
pub type Eviction = (Name, EventId);

/// Trails of all tenants and of the operator.
#[derive(Debug)]
pub struct EventLog {
    events: BTreeMap<EventId, LogEntry>,
    tenants: HashMap<Name, Trail>,
    /// Events of the operator's own actions, and the rest of deleted tenants' events. The operator sees the events of
    /// all trails.
    operator: Trail,
    /// Capacity of each ring.
    ring_capacity: usize,
    /// Stored events that no trail holds any more, with their revisions. The next change removes them.
    evicted: Vec<(EventId, u64)>,
    last: watch::Sender<EventId>,
}

impl EventLog {
    /// Builds the trails from the stored events.
    #[must_use]
    pub fn new(events: Vec<(StoredEvent, u64)>, state: &State, ring_capacity: usize) -> Self {
        let mut log = Self {
            events: BTreeMap::new(),
            tenants: HashMap::new(),
            operator: Trail::default(),
            ring_capacity: ring_capacity.max(1),
            evicted: Vec::new(),
            last: watch::channel(EventId::default()).0,
        };
        log.load(events, state);
        log
    }

    /// Replaces all events. Later events get identifiers after `last`.
    pub fn replace(&mut self, events: Vec<(StoredEvent, u64)>, state: &State, last: EventId) {
        self.events.clear();
        self.tenants.clear();
        self.operator = Trail::default();
        self.evicted.clear();
        self.load(events, state);
        let last = last.max(self.last());
        self.last.send_replace(last);
    }

    fn load(&mut self, mut events: Vec<(StoredEvent, u64)>, state: &State) {
        events.sort_by_key(|(recorded, _)| recorded.event.id);
        let last = events.last().map(|(recorded, _)| recorded.event.id);
        for (recorded, revision) in events {
            // A tenant does not see the events of an earlier tenant of the same name.
            let at = recorded.event.at;
            let exists = |tenant: &Name| {
                let tenant = state.tenants.get(tenant);
                tenant.is_some_and(|record| record.meta.created_at <= at)
            };
            self.insert(recorded, revision, exists);
        }
        self.last.send_replace(last.unwrap_or_default());
    }

    /// Returns the capacity of each ring.
    #[must_use]
    pub const fn ring_capacity(&self) -> usize {
        self.ring_capacity
    }

    /// Returns the identifier of the last event.
    #[must_use]
    pub fn last(&self) -> EventId {
        *self.last.borrow()
    }

    /// Returns a channel that holds the identifier of the last event.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<EventId> {
        self.last.subscribe()
    }

    /// Returns all events after an identifier, oldest first.
    pub fn events_after(&self, after: EventId) -> impl DoubleEndedIterator<Item = &StoredEvent> {
        let events = self
            .events
            .range((Bound::Excluded(after), Bound::Unbounded));
        events.map(|(_, entry)| &*entry.recorded)
    }

    /// Returns a tenant's events after an identifier, oldest first.
    pub fn tenant_events_after(
        &self,
        tenant: &Name,
        after: EventId,
    ) -> impl DoubleEndedIterator<Item = &StoredEvent> {
        let trail = self.tenants.get(tenant);
        let ids = trail.into_iter().flat_map(move |trail| {
            trail
                .events
                .range((Bound::Excluded(after), Bound::Unbounded))
        });
        ids.filter_map(|id| Some(&*self.events.get(id)?.recorded))
    }

    /// Returns the events after an identifier that the principal may see, oldest first.
    #[must_use]
    pub fn events_visible_to<'a>(
        &'a self,
        principal: &Principal,
        after: EventId,
    ) -> Box<dyn DoubleEndedIterator<Item = &'a StoredEvent> + 'a> {
        let Access::Tenants(roles) = &principal.access else {
            return Box::new(self.events_after(after));
        };
        // A single trail is iterated in place; several are merged into one set.
        let trails: Vec<&Trail> = roles
            .keys()
            .filter_map(|name| self.tenants.get(name))
            .collect();
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let stored = |id: &EventId| Some(&*self.events.get(id)?.recorded);
        match &trails[..] {
            [trail] => Box::new(trail.events.range(range).filter_map(stored)),
            trails => {
                let ids = trails.iter().flat_map(|trail| trail.events.range(range));
                let ids: BTreeSet<EventId> = ids.copied().collect();
                Box::new(ids.into_iter().filter_map(move |id| stored(&id)))
            }
        }
    }

    /// Returns the writes that store the events of a change, and delete the events that no trail holds any more.
    ///
    /// # Errors
    /// When an event can't be serialized.
    pub fn writes(&self, new: &[StoredEvent]) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::with_capacity(new.len() + self.evicted.len());
        for (id, revision) in &self.evicted {
            writes.push(Write {
                key: keys::event(*id),
                expected: *revision,
                value: None,
            });
        }
        let survivors = select_retained(new, self.ring_capacity);
        for (recorded, _) in new.iter().zip(survivors).filter(|(_, kept)| *kept) {
            writes.push(Write {
                key: keys::event(recorded.event.id),
                expected: 0,
                value: Some(serde_json::to_string(recorded)?),
            });
        }
        Ok(writes)
    }

    /// Adds events that were stored by [`Self::writes`]. Returns the evictions from tenants' trails.
    pub fn append(&mut self, new: Vec<StoredEvent>, revision: u64) -> Vec<Eviction> {
        self.evicted.clear();
        let Some(last) = new.iter().map(|recorded| recorded.event.id).max() else {
            return Vec::new();
        };
        let survivors = select_retained(&new, self.ring_capacity);
        let mut losses = Vec::new();
        for (recorded, survives) in new.into_iter().zip(survivors) {
            if survives {
                losses.extend(self.insert(recorded, revision, |_| true));
            } else {
                let id = recorded.event.id;
                losses.extend(recorded.viewers().map(|tenant| (tenant.clone(), id)));
            }
        }
        self.last.send_replace(last.max(self.last()));
        losses
    }

    fn insert(
        &mut self,
        recorded: StoredEvent,
        revision: u64,
        exists: impl Fn(&Name) -> bool,
    ) -> Vec<Eviction> {
        let recorded = Arc::new(recorded);
        let id = recorded.event.id;
        let class = EventClass::from_event(&recorded);
        self.events.insert(
            id,
            LogEntry {
                recorded: Arc::clone(&recorded),
                revision,
                trails: 0,
            },
        );
        let mut losses = Vec::new();
        let mut has_viewer = false;
        for tenant in recorded.viewers().filter(|tenant| exists(tenant)) {
            has_viewer = true;
            let ring = (ActorRelation::for_viewer(&recorded, tenant), class);
            let trail = self.tenants.entry(tenant.clone()).or_default();
            if let Some(evicted) = trail.insert(ring, &recorded, self.ring_capacity) {
                losses.push((tenant.clone(), evicted));
            }
            self.add_reference(id);
        }
        for (_, evicted) in &losses {
            self.drop_reference(*evicted);
        }
        // Events that no tenant sees go to the operator's trail, in a ring of their own.
        let side = match &recorded.acting {
            None => Some(ActorRelation::Operator),
            Some(_) if !has_viewer => Some(ActorRelation::OtherParty),
            Some(_) => None,
        };
        if let Some(side) = side {
            self.insert_for_operator((side, class), &recorded);
        }
        losses
    }

    fn insert_for_operator(
        &mut self,
        ring: (ActorRelation, EventClass),
        recorded: &Arc<StoredEvent>,
    ) {
        if self.operator.events.contains(&recorded.event.id) {
            return;
        }
        let evicted = self.operator.insert(ring, recorded, self.ring_capacity);
        self.add_reference(recorded.event.id);
        if let Some(evicted) = evicted {
            self.drop_reference(evicted);
        }
    }

    fn add_reference(&mut self, id: EventId) {
        if let Some(entry) = self.events.get_mut(&id) {
            entry.trails += 1;
        }
    }

    fn drop_reference(&mut self, id: EventId) {
        let Some(entry) = self.events.get_mut(&id) else {
            return;
        };
        entry.trails -= 1;
        if entry.trails == 0 {
            self.evicted.push((id, entry.revision));
            self.events.remove(&id);
        }
    }

    /// Removes the trail of a deleted tenant. The operator's trail takes as many of its events as fit.
    pub fn remove_tenant(&mut self, tenant: &Name) {
        let Some(trail) = self.tenants.remove(tenant) else {
            return;
        };
        for id in trail.events {
            let stored = self.events.get(&id).map(|kept| Arc::clone(&kept.recorded));
            if let Some(recorded) = stored.filter(|recorded| recorded.acting.is_some()) {
                let ring = (ActorRelation::OtherParty, EventClass::from_event(&recorded));
                self.insert_for_operator(ring, &recorded);
            }
            self.drop_reference(id);
        }
    }
}

impl Trail {
    /// Adds an event. Returns the one that is evicted for it.
    fn insert(
        &mut self,
        ring: (ActorRelation, EventClass),
        recorded: &StoredEvent,
        capacity: usize,
    ) -> Option<EventId> {
        let id = recorded.event.id;
        self.events.insert(id);
        let ring = self.rings.entry(ring).or_default();
        let evicted = ring.insert(recorded.acting.clone(), id, capacity)?;
        self.events.remove(&evicted);
        Some(evicted)
    }
}

#[cfg(test)]
#[path = "event_log_tests.rs"]
mod tests;
