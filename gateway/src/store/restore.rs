//! Preparation of a restore: the entries to write and the changes that they make. Performs no I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    model::{
        Change, ConnectionState, Identifiers, Kind, Object, Principal, State, VersionKey,
        event::{StoredEvent, events_for_changes},
        event_id::{EventClock, EventId},
        event_retention::select_retained,
    },
    store::{Backup, BackupError, Entry, StoreError, backup::BackupHeader, decode_entries, keys},
};

/// Message of the events that a restore creates.
const EVENT_MESSAGE: &str = "a backup was restored";

/// Maximum number of connections that a plan lists. The plan counts all of them.
const MAX_CONNECTIONS: usize = 1_000;

/// Current content of the store that a restore replaces.
#[derive(Clone, Copy, Debug)]
pub struct Baseline<'a> {
    /// Current state.
    pub state: &'a State,
    /// Last event.
    pub last_event: EventId,
}

/// Store that a restore replaces.
#[derive(Clone, Copy, Debug)]
pub struct RestoreTarget {
    /// Identity of the store; none if it can't be read.
    pub store: Option<uuid::Uuid>,
    /// Allows a backup that was made from another store.
    pub accept_foreign: bool,
}

impl RestoreTarget {
    /// Refuses a backup that was made from another store, unless that is allowed.
    ///
    /// # Errors
    /// Fails with [`BackupError::OtherStore`].
    pub fn check_store(self, header: &BackupHeader) -> Result<(), BackupError> {
        match self.store {
            Some(current_store) if current_store != header.store && !self.accept_foreign => {
                Err(BackupError::OtherStore {
                    backup_store: header.store,
                    current_store,
                })
            }
            _ => Ok(()),
        }
    }
}

/// Numbers of objects of one kind that a restore changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KindChanges {
    /// Kind of the objects.
    pub kind: Kind,
    /// Objects that only the backup has.
    pub created: u64,
    /// Objects that differ from the backup.
    pub updated: u64,
    /// Objects that the backup does not have.
    pub deleted: u64,
}

/// Connection whose state a restore changes, or whose open flows it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionChange {
    /// Endpoint, as `TENANT/NAME`.
    pub endpoint: String,
    /// Service, as `TENANT/NAME`.
    pub service: String,
    /// State before the restore; unset if the endpoint does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ConnectionState>,
    /// State after the restore; unset if the endpoint will not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConnectionState>,
}

/// Changes that a restore makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestorePlan {
    /// Time at which the backup was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// True if the backup is of another gateway.
    pub foreign: bool,
    /// True if the backup was compared with the current state. Otherwise all objects of the backup count as created.
    pub compared: bool,
    /// Changes by kind; kinds without changes are left out.
    pub changes: Vec<KindChanges>,
    /// Number of connections whose state changes, or whose open flows end.
    pub connections_changed: u64,
    /// First 1000 of these connections.
    pub connections: Vec<ConnectionChange>,
}

/// Restore that is ready to be written.
#[derive(Clone, Debug)]
pub struct PreparedRestore {
    /// Entries to write.
    pub entries: Vec<Entry>,
    /// Changes that the entries make.
    pub plan: RestorePlan,
}

/// Returns the entries to write when a backup is restored, and the changes that they make.
///
/// An approved connection gets a new generation unless the current state has the same connection with the same
/// generation. Flows of approvals that were revoked since the backup therefore stay dead. Without a baseline, every
/// approved connection gets a new generation.
///
/// The restore adds an event for each change, as far as `max_events`, the capacity of each ring of the event log,
/// allows.
///
/// # Errors
/// Fails if the backup was made from another store and that is not allowed, or if its entries can't be decoded.
pub fn prepare_restore(
    backup: Backup,
    baseline: Option<Baseline<'_>>,
    replacing: RestoreTarget,
    principal: &Principal,
    now: Timestamp,
    max_events: usize,
    identifiers: &mut dyn Identifiers,
) -> Result<PreparedRestore, StoreError> {
    let Backup {
        header,
        mut entries,
    } = backup;
    replacing.check_store(&header)?;
    for entry in &mut entries {
        if !entry.key.starts_with("endpoints/") {
            continue;
        }
        let mut object = Object::decode(&entry.key, &entry.value, entry.revision)?;
        let reference = object.reference();
        let current = baseline.and_then(|before| before.state.endpoints.get(&reference));
        if let Object::Endpoint(_, record) = &mut object {
            let connection = &mut record.object.connection;
            let is_unchanged = current.is_some_and(|now| {
                let now = &now.object.connection;
                (now.link_id, now.generation) == (connection.link_id, connection.generation)
            });
            if connection.generation != 0 && !is_unchanged {
                let old_generation = connection.generation;
                connection.generation = identifiers.number(&|number| number == old_generation);
            }
        }
        entry.value = object.encode()?;
    }
    let loaded = decode_entries(entries.clone(), VersionKey::default())?;
    let nothing = State::default();
    let state = baseline.map_or(&nothing, |before| before.state);
    let changes = diff_states(state, &loaded.state);
    let plan = build_plan(&header, replacing, baseline.is_some(), state, &changes);
    if let Some(baseline) = baseline {
        let backup_ids = loaded.events.iter().map(|(recorded, _)| recorded.event.id);
        let last_backup_id = backup_ids.max().unwrap_or_default();
        let ticks = EventClock::new(baseline.last_event.max(last_backup_id)).next_ticks();
        let mut new_events =
            events_for_changes(baseline.state, &changes, principal, now, ticks, identifiers);
        for StoredEvent { event, .. } in &mut new_events {
            EVENT_MESSAGE.clone_into(&mut event.message);
        }
        let retained = select_retained(&new_events, max_events);
        for (recorded, _) in new_events.iter().zip(retained).filter(|(_, kept)| *kept) {
            entries.push(Entry {
                key: keys::event(recorded.event.id),
                value: serde_json::to_string(recorded)?,
                revision: 0,
            });
        }
    }
    Ok(PreparedRestore { entries, plan })
}

/// Summarises the changes of a state.
fn build_plan(
    header: &BackupHeader,
    replacing: RestoreTarget,
    compared: bool,
    before: &State,
    changes: &[Change],
) -> RestorePlan {
    let mut kinds: BTreeMap<Kind, KindChanges> = BTreeMap::new();
    let mut connections = Vec::new();
    let mut connections_changed = 0;
    for change in changes {
        let object = change.object();
        let kind = object.kind();
        let counts = kinds.entry(kind).or_insert(KindChanges {
            kind,
            created: 0,
            updated: 0,
            deleted: 0,
        });
        let count = match change {
            Change::Delete(_) => &mut counts.deleted,
            Change::Put(_) if before.object(kind, &object.reference()).is_some() => {
                &mut counts.updated
            }
            Change::Put(_) => &mut counts.created,
        };
        *count += 1;
        if let Some(changed) = connection_change(before, change) {
            connections_changed += 1;
            if connections.len() < MAX_CONNECTIONS {
                connections.push(changed);
            }
        }
    }
    RestorePlan {
        created_at: header.created_at,
        foreign: replacing
            .store
            .is_some_and(|current_store| current_store != header.store),
        compared,
        changes: kinds.into_values().collect(),
        connections_changed,
        connections,
    }
}

/// Returns the change of a connection's state or generation, if the change is one.
fn connection_change(before: &State, change: &Change) -> Option<ConnectionChange> {
    let object = change.object();
    let Object::Endpoint(_, record) = object else {
        return None;
    };
    let old = before.endpoints.get(&object.reference());
    let old = old.map(|old| &old.object.connection);
    let new = match change {
        Change::Put(_) => Some(&record.object.connection),
        Change::Delete(_) => None,
    };
    let same = old.zip(new).is_some_and(|(old, new)| {
        (old.state, old.generation, old.link_id) == (new.state, new.generation, new.link_id)
    });
    (!same).then(|| ConnectionChange {
        endpoint: object.path(),
        service: record.object.service_identity.reference.to_string(),
        before: old.map(|connection| connection.state),
        after: new.map(|connection| connection.state),
    })
}

/// Returns the changes that turn `before` into `after`.
fn diff_states(before: &State, after: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    for old in before.objects() {
        if after.object(old.kind(), &old.reference()).is_none() {
            changes.push(Change::Delete(old));
        }
    }
    for new in after.objects() {
        let old = before.object(new.kind(), &new.reference());
        let same = old.is_some_and(|mut old| {
            old.meta_mut().version = new.meta().version;
            old == new
        });
        if !same {
            changes.push(Change::Put(new));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Decision, RandomIdentifiers, event::Action, operations::tests::World};

    const STORE: Uuid = Uuid::from_u128(7);

    fn backup(state: &State) -> Backup {
        let entry = |object: Object| Entry {
            key: object.key(),
            value: object.encode().unwrap(),
            revision: 5,
        };
        let mut entries: Vec<Entry> = state.objects().map(entry).collect();
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        let header = BackupHeader::new(4, STORE, 1, Timestamp::UNIX_EPOCH);
        Backup { header, entries }
    }

    fn restore(backup: Backup, before: Option<&State>) -> (State, Vec<StoredEvent>, RestorePlan) {
        let before = before.map(|state| Baseline {
            state,
            last_event: EventId::from_number(40),
        });
        let principal = Principal::operator("operator", "offline");
        let now = Timestamp::UNIX_EPOCH;
        let replacing = RestoreTarget {
            store: Some(STORE),
            accept_foreign: false,
        };
        let identifiers = &mut RandomIdentifiers;
        let restored =
            prepare_restore(backup, before, replacing, &principal, now, 100, identifiers);
        let PreparedRestore { entries, plan } = restored.unwrap();
        let loaded = decode_entries(entries, VersionKey::default()).unwrap();
        let events = loaded.events.into_iter().map(|(event, _)| event);
        (loaded.state, events.collect(), plan)
    }

    fn generation(state: &State) -> u32 {
        let endpoint = &state.endpoints[&"consumer/a".parse().unwrap()];
        endpoint.object.connection.generation
    }

    /// Returns a world with an approved connection.
    fn approved() -> World {
        let mut world = World::furnished();
        world
            .endpoint("consumer/a", "10.0.0.101", "provider/shop")
            .unwrap();
        world
            .decide_if_there("provider/shop", "consumer/a", Decision::Approve)
            .unwrap();
        world
    }

    #[test]
    fn an_unchanged_connection_keeps_its_generation_and_makes_no_event() {
        let world = approved();
        let (state, events, plan) = restore(backup(&world.state), Some(&world.state));
        assert_ne!(generation(&state), 0);
        assert_eq!(generation(&state), generation(&world.state));
        assert_eq!(events, []);
        assert_eq!((plan.changes, plan.connections), (vec![], vec![]));
    }

    #[test]
    fn a_revoked_connection_gets_a_new_generation_and_an_event() {
        let mut world = approved();
        let before = generation(&world.state);
        let old = backup(&world.state);
        world
            .decide_if_there("provider/shop", "consumer/a", Decision::Reject)
            .unwrap();
        let (state, events, plan) = restore(old, Some(&world.state));
        assert!(![0, before].contains(&generation(&state)));
        let [stored] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(stored.event.action, Action::Approved);
        assert!(stored.event.id > EventId::from_number(40));
        assert_eq!(stored.event.message, EVENT_MESSAGE);
        let [connection] = &plan.connections[..] else {
            panic!("{plan:?}");
        };
        assert_eq!(connection.endpoint, "consumer/a");
        assert_eq!(connection.service, "provider/shop");
        let states = (connection.before, connection.after);
        let (rejected, approved) = (ConnectionState::Rejected, ConnectionState::Approved);
        assert_eq!(states, (Some(rejected), Some(approved)));
    }

    #[test]
    fn without_a_baseline_every_connection_gets_a_new_generation() {
        let world = approved();
        let (state, events, plan) = restore(backup(&world.state), None);
        assert!(![0, generation(&world.state)].contains(&generation(&state)));
        assert_eq!(events, []);
        assert!(!plan.compared);
    }

    #[test]
    fn an_object_missing_from_the_backup_makes_a_deleted_event() {
        let world = approved();
        let old = backup(&World::furnished().state);
        let (state, events, plan) = restore(old, Some(&world.state));
        assert!(state.endpoints.is_empty());
        let deleted = |kind| KindChanges {
            kind,
            created: 0,
            updated: 0,
            deleted: 1,
        };
        assert_eq!(plan.changes, [deleted(Kind::Endpoint)]);
        assert_eq!(plan.connections[0].after, None);
        assert!(
            events
                .iter()
                .any(|stored| stored.event.action == Action::Deleted
                    && stored.event.object == "consumer/a")
        );
    }

    #[test]
    fn a_backup_of_another_store_needs_the_foreign_option() {
        let state = World::furnished().state;
        let header = backup(&state).header;
        let other = Some(Uuid::from_u128(8));
        for (store, foreign, fine) in [
            (Some(STORE), false, true),
            (other, false, false),
            (other, true, true),
            (None, false, true),
        ] {
            let replacing = RestoreTarget {
                store,
                accept_foreign: foreign,
            };
            assert_eq!(
                replacing.check_store(&header).is_ok(),
                fine,
                "{replacing:?}"
            );
        }
    }
}
