//! The event log: recent events, kept in the store within bounds and in memory for readers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    model::{
        Access, Name, Principal, State,
        event::Recorded,
        event_id::EventId,
        ring::Ring,
        trail::{Class, Side, surviving},
    },
    store::{StoreError, Write, keys},
};

/// An event that is in at least one trail.
#[derive(Debug)]
struct Kept {
    recorded: Arc<Recorded>,
    /// The store's revision at which it was written.
    revision: u64,
    /// Number of trails that hold the event.
    trails: usize,
}

/// The events that one tenant sees, or that are kept for the operator.
#[derive(Debug, Default)]
struct Trail {
    events: BTreeSet<EventId>,
    rings: BTreeMap<(Side, Class), Ring<Option<Name>, EventId>>,
}

/// An event that went out of a tenant's trail for want of room.
pub type Loss = (Name, EventId);

/// The trails of all tenants, and the operator's own.
#[derive(Debug)]
pub struct Journal {
    events: BTreeMap<EventId, Kept>,
    tenants: HashMap<Name, Trail>,
    /// What the operator did, and what is left of tenants that are deleted. The operator sees everything
    /// that any trail has.
    operator: Trail,
    /// The room of each ring.
    most: usize,
    /// Events of the store that no trail has any more, with their revisions: the next change removes them.
    surplus: Vec<(EventId, u64)>,
    last: watch::Sender<EventId>,
}

impl Journal {
    /// Makes the trails of what the store has.
    #[must_use]
    pub fn new(events: Vec<(Recorded, u64)>, state: &State, most: usize) -> Self {
        let mut journal = Self {
            events: BTreeMap::new(),
            tenants: HashMap::new(),
            operator: Trail::default(),
            most: most.max(1),
            surplus: Vec::new(),
            last: watch::channel(EventId::default()).0,
        };
        journal.fill(events, state);
        journal
    }

    /// Takes in other events in the place of these. Later ones have identifiers after `last`.
    pub fn replace(&mut self, events: Vec<(Recorded, u64)>, state: &State, last: EventId) {
        self.events.clear();
        self.tenants.clear();
        self.operator = Trail::default();
        self.surplus.clear();
        self.fill(events, state);
        let last = last.max(self.last());
        self.last.send_replace(last);
    }

    fn fill(&mut self, mut events: Vec<(Recorded, u64)>, state: &State) {
        events.sort_by_key(|(recorded, _)| recorded.event.id);
        let last = events.last().map(|(recorded, _)| recorded.event.id);
        for (recorded, revision) in events {
            // A tenant does not see what happened to an earlier one of its name.
            let at = recorded.event.at;
            let exists = |tenant: &Name| {
                let tenant = state.tenants.get(tenant);
                tenant.is_some_and(|record| record.meta.created_at <= at)
            };
            self.insert(recorded, revision, exists);
        }
        self.last.send_replace(last.unwrap_or_default());
    }

    /// Returns how many events each ring has room for.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the last event's identifier.
    #[must_use]
    pub fn last(&self) -> EventId {
        *self.last.borrow()
    }

    /// Tells of each change that has events.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<EventId> {
        self.last.subscribe()
    }

    /// Returns all events after one, oldest first.
    pub fn after(&self, after: EventId) -> impl DoubleEndedIterator<Item = &Recorded> {
        let events = self
            .events
            .range((Bound::Excluded(after), Bound::Unbounded));
        events.map(|(_, kept)| &*kept.recorded)
    }

    /// Returns a tenant's events after one, oldest first.
    pub fn trail_after(
        &self,
        tenant: &Name,
        after: EventId,
    ) -> impl DoubleEndedIterator<Item = &Recorded> {
        let trail = self.tenants.get(tenant);
        let ids = trail.into_iter().flat_map(move |trail| {
            trail
                .events
                .range((Bound::Excluded(after), Bound::Unbounded))
        });
        ids.filter_map(|id| Some(&*self.events.get(id)?.recorded))
    }

    /// Returns the events after one that somebody may see, oldest first.
    #[must_use]
    pub fn seen_by<'a>(
        &'a self,
        principal: &Principal,
        after: EventId,
    ) -> Box<dyn DoubleEndedIterator<Item = &'a Recorded> + 'a> {
        let Access::Tenants(roles) = &principal.access else {
            return Box::new(self.after(after));
        };
        // One trail is gone through where it lies; several are merged.
        let trails: Vec<&Trail> = roles
            .keys()
            .filter_map(|name| self.tenants.get(name))
            .collect();
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let found = |id: &EventId| Some(&*self.events.get(id)?.recorded);
        match &trails[..] {
            [trail] => Box::new(trail.events.range(range).filter_map(found)),
            trails => {
                let ids = trails.iter().flat_map(|trail| trail.events.range(range));
                let ids: BTreeSet<EventId> = ids.copied().collect();
                Box::new(ids.into_iter().filter_map(move |id| found(&id)))
            }
        }
    }

    /// Returns the writes that put the events of a change into the store, and remove what has gone out of
    /// all trails before.
    ///
    /// # Errors
    /// When an event can't be written down.
    pub fn writes(&self, new: &[Recorded]) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::with_capacity(new.len() + self.surplus.len());
        for (id, revision) in &self.surplus {
            writes.push(Write {
                key: keys::event(*id),
                expected: *revision,
                value: None,
            });
        }
        let kept = surviving(new, self.most);
        for (recorded, _) in new.iter().zip(kept).filter(|(_, kept)| *kept) {
            writes.push(Write {
                key: keys::event(recorded.event.id),
                expected: 0,
                value: Some(serde_json::to_string(recorded)?),
            });
        }
        Ok(writes)
    }

    /// Takes in events that the store has, after [`Self::writes`]. Returns what went out of tenants' trails.
    pub fn append(&mut self, new: Vec<Recorded>, revision: u64) -> Vec<Loss> {
        self.surplus.clear();
        let Some(last) = new.iter().map(|recorded| recorded.event.id).max() else {
            return Vec::new();
        };
        let kept = surviving(&new, self.most);
        let mut losses = Vec::new();
        for (recorded, kept) in new.into_iter().zip(kept) {
            if kept {
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
        recorded: Recorded,
        revision: u64,
        exists: impl Fn(&Name) -> bool,
    ) -> Vec<Loss> {
        let recorded = Arc::new(recorded);
        let id = recorded.event.id;
        let class = Class::of(&recorded);
        self.events.insert(
            id,
            Kept {
                recorded: Arc::clone(&recorded),
                revision,
                trails: 0,
            },
        );
        let mut losses = Vec::new();
        let mut seen = false;
        for tenant in recorded.viewers().filter(|tenant| exists(tenant)) {
            seen = true;
            let ring = (Side::of(&recorded, tenant), class);
            let trail = self.tenants.entry(tenant.clone()).or_default();
            if let Some(evicted) = trail.insert(ring, &recorded, self.most) {
                losses.push((tenant.clone(), evicted));
            }
            self.hold(id);
        }
        for (_, evicted) in &losses {
            self.release(*evicted);
        }
        // What is left of deleted tenants is the operator's to see, with a bound of its own.
        let side = match &recorded.acting {
            None => Some(Side::Operator),
            Some(_) if !seen => Some(Side::Others),
            Some(_) => None,
        };
        if let Some(side) = side {
            self.insert_for_operator((side, class), &recorded);
        }
        losses
    }

    fn insert_for_operator(&mut self, ring: (Side, Class), recorded: &Arc<Recorded>) {
        if self.operator.events.contains(&recorded.event.id) {
            return;
        }
        let evicted = self.operator.insert(ring, recorded, self.most);
        self.hold(recorded.event.id);
        if let Some(evicted) = evicted {
            self.release(evicted);
        }
    }

    fn hold(&mut self, id: EventId) {
        if let Some(kept) = self.events.get_mut(&id) {
            kept.trails += 1;
        }
    }

    fn release(&mut self, id: EventId) {
        let Some(kept) = self.events.get_mut(&id) else {
            return;
        };
        kept.trails -= 1;
        if kept.trails == 0 {
            self.surplus.push((id, kept.revision));
            self.events.remove(&id);
        }
    }

    /// Forgets the trail of a tenant that is deleted. The operator keeps what fits.
    pub fn forget_tenant(&mut self, tenant: &Name) {
        let Some(trail) = self.tenants.remove(tenant) else {
            return;
        };
        for id in trail.events {
            let found = self.events.get(&id).map(|kept| Arc::clone(&kept.recorded));
            if let Some(recorded) = found.filter(|recorded| recorded.acting.is_some()) {
                let ring = (Side::Others, Class::of(&recorded));
                self.insert_for_operator(ring, &recorded);
            }
            self.release(id);
        }
    }
}

impl Trail {
    /// Adds an event; returns the one that has to make room.
    fn insert(&mut self, ring: (Side, Class), recorded: &Recorded, most: usize) -> Option<EventId> {
        let id = recorded.event.id;
        self.events.insert(id);
        let ring = self.rings.entry(ring).or_default();
        let evicted = ring.insert(recorded.acting.clone(), id, most)?;
        self.events.remove(&evicted);
        Some(evicted)
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
