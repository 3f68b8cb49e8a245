//! What a backup comes to when it takes the place of what is there. Pure.

use jiff::Timestamp;

use crate::{
    model::{
        Change, Identifiers, Object, Principal, State,
        event::{Recorded, events},
    },
    store::{Entry, StoreError, interpret, keys},
};

/// What the events say.
const MESSAGE: &str = "a backup was restored";

/// What is there, if that can be known.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The objects.
    pub state: &'a State,
    /// The number of the last event.
    pub last_event: u64,
}

/// The entries that are to be written when a backup is restored. Connections that are not just as they
/// are now are approved anew, so that flows that were cut since stay dead; if it is not known how they
/// are, that is all of them. What becomes another is told by events, of which so many are kept.
///
/// # Errors
/// When the backup is not understood.
pub fn restored(
    mut backup: Vec<Entry>,
    before: Option<Before<'_>>,
    principal: &Principal,
    now: Timestamp,
    most_events: usize,
    identifiers: &mut dyn Identifiers,
) -> Result<Vec<Entry>, StoreError> {
    for entry in &mut backup {
        if !entry.key.starts_with("endpoints/") {
            continue;
        }
        let mut object = Object::decode(&entry.key, &entry.value, entry.revision)?;
        let reference = object.reference();
        let current = before.and_then(|before| before.state.endpoints.get(&reference));
        if let Object::Endpoint(_, record) = &mut object {
            let then = &mut record.object.connection;
            let stayed = current.is_some_and(|now| {
                let now = &now.object.connection;
                (now.link_id, now.generation) == (then.link_id, then.generation)
            });
            if then.generation != 0 && !stayed {
                let before = then.generation;
                then.generation = identifiers.number(&|number| number == before);
            }
        }
        entry.value = object.encode()?;
    }
    let loaded = interpret(backup.clone())?;
    let Some(before) = before else {
        return Ok(backup);
    };
    let theirs = loaded.events.last();
    let theirs = theirs.map_or(0, |(recorded, _)| recorded.event.id);
    let changes = difference(before.state, &loaded.state);
    let first = before.last_event.max(theirs) + 1;
    let mut told = events(before.state, &changes, principal, now, first);
    for Recorded { event, .. } in &mut told {
        MESSAGE.clone_into(&mut event.message);
    }
    let skip = told.len().saturating_sub(most_events);
    for recorded in told.iter().skip(skip) {
        backup.push(Entry {
            key: keys::event(recorded.event.id),
            value: serde_json::to_string(recorded)?,
            revision: 0,
        });
    }
    Ok(backup)
}

/// What has to be done to one for it to become the other.
fn difference(before: &State, after: &State) -> Vec<Change> {
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
    use super::*;
    use crate::model::{Decision, RandomIdentifiers, event::Action, operations::tests::World};

    fn backup(state: &State) -> Vec<Entry> {
        let entry = |object: Object| Entry {
            key: object.key(),
            value: object.encode().unwrap(),
            revision: 5,
        };
        state.objects().map(entry).collect()
    }

    fn restore(backup: Vec<Entry>, before: Option<&State>) -> (State, Vec<Recorded>) {
        let before = before.map(|state| Before {
            state,
            last_event: 40,
        });
        let principal = Principal::operator("operator", "offline");
        let now = Timestamp::UNIX_EPOCH;
        let entries = restored(backup, before, &principal, now, 100, &mut RandomIdentifiers);
        let loaded = interpret(entries.unwrap()).unwrap();
        let events = loaded.events.into_iter().map(|(event, _)| event);
        (loaded.state, events.collect())
    }

    fn generation(state: &State) -> u32 {
        let endpoint = &state.endpoints[&"consumer/a".parse().unwrap()];
        endpoint.object.connection.generation
    }

    /// A world with an approved connection.
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
    fn what_is_as_it_was_stays_and_nothing_is_told() {
        let world = approved();
        let (state, events) = restore(backup(&world.state), Some(&world.state));
        assert_ne!(generation(&state), 0);
        assert_eq!(generation(&state), generation(&world.state));
        assert_eq!(events, []);
    }

    #[test]
    fn what_was_cut_since_is_approved_anew_and_told() {
        let mut world = approved();
        let before = generation(&world.state);
        let old = backup(&world.state);
        world
            .decide_if_there("provider/shop", "consumer/a", Decision::Reject)
            .unwrap();
        let (state, events) = restore(old, Some(&world.state));
        assert!(![0, before].contains(&generation(&state)));
        let [told] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(told.event.action, Action::Approved);
        assert_eq!((told.event.id, &*told.event.message), (41, MESSAGE));
    }

    #[test]
    fn what_can_not_be_compared_is_all_approved_anew() {
        let world = approved();
        let (state, events) = restore(backup(&world.state), None);
        assert!(![0, generation(&world.state)].contains(&generation(&state)));
        assert_eq!(events, []);
    }

    #[test]
    fn what_is_not_in_the_backup_is_told_to_be_deleted() {
        let world = approved();
        let old = backup(&World::furnished().state);
        let (state, events) = restore(old, Some(&world.state));
        assert!(state.endpoints.is_empty());
        assert!(
            events
                .iter()
                .any(|told| told.event.action == Action::Deleted
                    && told.event.object == "consumer/a")
        );
    }
}
