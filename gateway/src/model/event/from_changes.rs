//! Events of the changes of an operation.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use crate::model::{
    Access, Change, ConnectionState, Endpoint, Identifiers, Name, Object, Principal, Record, State,
    event::{Action, Event, StoredEvent},
    event_id::EventId,
    limits, text,
};

/// Returns the events of changes that are committed together. `ticks` is the time of the event clock.
#[must_use]
pub fn events_for_changes(
    before: &State,
    changes: &[Change],
    principal: &Principal,
    now: Timestamp,
    ticks: u64,
    identifiers: &mut dyn Identifiers,
) -> Vec<StoredEvent> {
    let described = changes.iter().flat_map(|change| {
        describe_replaced(before, change)
            .into_iter()
            .chain([describe(before, change)])
    });
    let mut events: Vec<StoredEvent> = described
        .map(|described| {
            let owner = described.object.tenant().clone();
            let endpoint = match &*described.object {
                Object::Endpoint(_, record) => Some(&record.object),
                _ => None,
            };
            let service = endpoint.map(|endpoint| endpoint.service_identity.reference.clone());
            let other = service.as_ref().map(|service| &service.tenant);
            let acting = acting_tenant(principal, &owner, other, described.decided);
            StoredEvent {
                event: Event {
                    id: EventId::default(),
                    at: now,
                    action: described.action,
                    kind: described.object.kind(),
                    object: described.object.path(),
                    service,
                    link_id: endpoint.map(|endpoint| endpoint.connection.link_id),
                    message: described.message,
                    fields: described.fields,
                    // Bounded, because names come from other systems and are shown to the other tenant too.
                    actor: text::truncated(&principal.name, limits::MAX_ACTOR),
                    from: text::truncated(&principal.from, limits::MAX_ACTOR),
                },
                owner,
                acting,
                decided: described.decided,
            }
        })
        .collect();
    assign_ids(&mut events, ticks, identifiers);
    events
}

/// Assigns identifiers of the same time to the events of one change. Events that the same tenants see keep their order.
/// The identifiers that a tenant sees reveal nothing about the number of those that it does not see, because all are
/// random.
pub(super) fn assign_ids(
    events: &mut [StoredEvent],
    ticks: u64,
    identifiers: &mut dyn Identifiers,
) {
    let mut groups: BTreeMap<(Name, Option<Name>), Vec<usize>> = BTreeMap::new();
    for (index, recorded) in events.iter().enumerate() {
        let service = recorded.event.service.as_ref();
        let viewers = (
            recorded.owner.clone(),
            service.map(|service| service.tenant.clone()),
        );
        groups.entry(viewers).or_default().push(index);
    }
    for indices in groups.into_values() {
        let mut ids: Vec<EventId> = indices
            .iter()
            .map(|_| EventId::new(ticks, identifiers.bits()))
            .collect();
        ids.sort_unstable();
        for (index, id) in indices.into_iter().zip(ids) {
            events[index].event.id = id;
        }
    }
}

/// Returns the tenant on whose behalf the principal acts, or `None` for the operator.
fn acting_tenant(
    principal: &Principal,
    owner: &Name,
    other: Option<&Name>,
    decided: bool,
) -> Option<Name> {
    let sides = if decided {
        [other, Some(owner)]
    } else {
        [Some(owner), other]
    };
    match principal.access {
        Access::Operator => None,
        Access::Tenants(_) => {
            let mut sides = sides.into_iter().flatten();
            sides.find(|side| principal.can_see(side)).cloned()
        }
    }
}

struct EventDescription<'a> {
    object: Cow<'a, Object>,
    action: Action,
    /// True for a provider's decision.
    decided: bool,
    message: String,
    fields: Vec<String>,
}

/// Describes the end of an endpoint that the change replaces by another one of the same name, so that the provider of
/// its service learns of it.
fn describe_replaced<'a>(before: &State, change: &'a Change) -> Option<EventDescription<'a>> {
    let Change::Put(Object::Endpoint(tenant, new)) = change else {
        return None;
    };
    let old = before.endpoints.get(&change.object().reference())?;
    (old.meta.uid != new.meta.uid).then(|| EventDescription {
        object: Cow::Owned(Object::Endpoint(tenant.clone(), old.clone())),
        action: Action::Deleted,
        decided: false,
        message: String::new(),
        fields: Vec::new(),
    })
}

fn describe<'a>(before: &State, change: &'a Change) -> EventDescription<'a> {
    let object = change.object();
    let plain = |action| EventDescription {
        object: Cow::Borrowed(object),
        action,
        decided: false,
        message: String::new(),
        fields: Vec::new(),
    };
    if matches!(change, Change::Delete(_)) {
        return plain(Action::Deleted);
    }
    if let Object::Endpoint(_, record) = object {
        let old = before.endpoints.get(&object.reference());
        return EventDescription {
            object: Cow::Borrowed(object),
            ..describe_endpoint(old, record, plain(Action::Updated))
        };
    }
    match before.object(object.kind(), &object.reference()) {
        None => plain(Action::Created),
        Some(old) => EventDescription {
            fields: changed_fields(&old, object),
            ..plain(Action::Updated)
        },
    }
}

fn describe_endpoint<'a>(
    old: Option<&Record<Endpoint>>,
    new: &Record<Endpoint>,
    plain: EventDescription<'a>,
) -> EventDescription<'a> {
    let connection = &new.object.connection;
    let action = match connection.state {
        ConnectionState::Pending => Action::Requested,
        ConnectionState::Approved => Action::Approved,
        ConnectionState::Rejected => Action::Rejected,
        ConnectionState::Disconnected => Action::Disconnected,
    };
    // A connection with another link id is a new request.
    let old = old.filter(|old| old.object.connection.link_id == connection.link_id);
    match old {
        None => EventDescription {
            action,
            message: new.object.request_message.clone(),
            ..plain
        },
        Some(old) if old.object.connection.state != connection.state => EventDescription {
            action,
            decided: true,
            message: connection.reason.clone(),
            ..plain
        },
        Some(_) => EventDescription {
            fields: vec!["labels".to_owned()],
            ..plain
        },
    }
}

/// Returns the names of the top-level fields that differ, without those that the gateway maintains.
fn changed_fields(old: &Object, new: &Object) -> Vec<String> {
    let (Ok(old), Ok(new)) = (old.to_value(), new.to_value()) else {
        return Vec::new();
    };
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return Vec::new();
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .filter(|name| !["version", "updated_at", "resource_numbers"].contains(&name.as_str()))
        .cloned()
        .collect()
}
