//! Events: records of changes, with their actor and origin. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Access, Change, ConnectionState, Endpoint, Identifiers, Kind, Name, Object, Principal, Record,
    Reference, State, event_id::EventId, limits, text,
};

/// Action on an object that an event records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The object was created.
    Created,
    /// Fields of the object were changed.
    Updated,
    /// The object was deleted.
    Deleted,
    /// An endpoint was created and waits for the provider's approval.
    Requested,
    /// An endpoint's connection was approved.
    Approved,
    /// An endpoint's connection was rejected.
    Rejected,
    /// An endpoint's connection was removed, which is final.
    Disconnected,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Requested => "requested",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Disconnected => "disconnected",
        })
    }
}

/// Record of one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Identifier: a UUID of version 7 (RFC 9562). Later events have higher identifiers.
    #[schema(value_type = String, format = Uuid)]
    pub id: EventId,
    /// Time of the change.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Action that was taken.
    pub action: Action,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object: `TENANT`, or `TENANT/NAME`.
    pub object: String,
    /// Service that the endpoint is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Reference>,
    /// Link id of the endpoint's connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_id: Option<u32>,
    /// Message of the connection request, or reason of the decision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Fields that were changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Name of the actor. An actor of another tenant is shown as `the other side`.
    pub actor: String,
    /// Origin of the request: `socket`, or an IP address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
}

/// Event as it is stored, with the fields that decide its visibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event, unredacted.
    #[serde(flatten)]
    pub event: Event,
    /// Tenant that owns the object.
    pub owner: Name,
    /// Tenant that caused the event. `None` stands for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting: Option<Name>,
    /// True for a provider's decision about a connection.
    #[serde(default)]
    pub decided: bool,
}

impl StoredEvent {
    /// Returns the event as the principal may see it, or `None` if it may not see the event.
    #[must_use]
    pub fn redacted_for(&self, principal: &Principal) -> Option<Event> {
        let Access::Tenants(roles) = &principal.access else {
            return Some(self.event.clone());
        };
        let owns = roles.contains_key(&self.owner);
        let service = self.event.service.as_ref();
        let serves = service.is_some_and(|service| roles.contains_key(&service.tenant));
        if !owns && !serves {
            return None;
        }
        let mut event = self.event.clone();
        if !serves {
            event.service = None;
        }
        match &self.acting {
            Some(acting) if roles.contains_key(acting) => {}
            acting => {
                event.actor = if acting.is_some() {
                    "the other side"
                } else {
                    "operator"
                }
                .to_owned();
                event.from = String::new();
            }
        }
        Some(event)
    }

    /// Returns the tenants that see the event.
    pub fn viewers(&self) -> impl Iterator<Item = &Name> {
        let service = self.event.service.as_ref();
        let other = service.map(|service| &service.tenant);
        [&self.owner]
            .into_iter()
            .chain(other.filter(|other| **other != self.owner))
    }
}

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
    let described = changes.iter().map(|change| describe(before, change));
    let mut events: Vec<StoredEvent> = described
        .map(|described| {
            let owner = described.object.tenant().clone();
            let endpoint = match described.object {
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
fn assign_ids(events: &mut [StoredEvent], ticks: u64, identifiers: &mut dyn Identifiers) {
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
    object: &'a Object,
    action: Action,
    /// True for a provider's decision.
    decided: bool,
    message: String,
    fields: Vec<String>,
}

fn describe<'a>(before: &State, change: &'a Change) -> EventDescription<'a> {
    let object = change.object();
    let plain = |action| EventDescription {
        object,
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
            object,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Decision, RandomIdentifiers, Role, operations::tests::World};

    fn principal(access: Access) -> Principal {
        Principal {
            identity: "token 1".to_owned(),
            name: "token shop/ci".to_owned(),
            from: "192.0.2.1".to_owned(),
            access,
        }
    }

    fn tenant_admin(tenant: &str) -> Principal {
        principal(Access::Tenants(
            [(tenant.parse().unwrap(), Role::Admin)].into(),
        ))
    }

    /// Returns the event of a provider's approval.
    fn decided() -> StoredEvent {
        let mut world = World::furnished();
        world
            .endpoint("consumer/db", "10.0.0.100", "provider/shop")
            .unwrap();
        let before = world.state.clone();
        world
            .decide("provider/shop", "consumer/db", Decision::Approve)
            .unwrap();
        let record = world.state.endpoints[&"consumer/db".parse().unwrap()].clone();
        let change = Change::Put(Object::Endpoint("consumer".parse().unwrap(), record));
        let mut events = events_for_changes(
            &before,
            &[change],
            &tenant_admin("provider"),
            Timestamp::UNIX_EPOCH,
            7,
            &mut RandomIdentifiers,
        );
        events.remove(0)
    }

    #[test]
    fn a_decision_is_visible_to_both_tenants_only() {
        let recorded = decided();
        assert_eq!(recorded.event.action, Action::Approved);
        assert!(recorded.decided);
        assert_eq!(recorded.event.id.ticks(), 7);
        assert_eq!(recorded.event.message, "said so");
        let provider = recorded.redacted_for(&tenant_admin("provider")).unwrap();
        assert_eq!(provider.actor, "token shop/ci");
        assert!(provider.service.is_some());
        let consumer = recorded.redacted_for(&tenant_admin("consumer")).unwrap();
        assert_eq!((&*consumer.actor, &*consumer.from), ("the other side", ""));
        assert_eq!(consumer.service, None);
        assert_eq!(recorded.redacted_for(&tenant_admin("b")), None);
        let operator = recorded.redacted_for(&principal(Access::Operator)).unwrap();
        assert_eq!(operator, recorded.event);
    }

    #[test]
    fn an_update_event_names_the_changed_fields() {
        let mut world = World::furnished();
        let service = |world: &World| {
            let record = world.state.services[&"provider/shop".parse().unwrap()].clone();
            Object::Service("provider".parse().unwrap(), record)
        };
        let before = world.state.clone();
        let Object::Service(tenant, mut record) = service(&world) else {
            panic!("a service");
        };
        record.object.spec.max_connections_per_tenant = Some(3);
        record.meta.version = crate::model::Version::from_revision(99);
        let change = Change::Put(Object::Service(tenant, record));
        let events = events_for_changes(
            &before,
            &[change],
            &tenant_admin("provider"),
            Timestamp::UNIX_EPOCH,
            1,
            &mut RandomIdentifiers,
        );
        assert_eq!(events[0].event.action, Action::Updated);
        assert_eq!(events[0].event.fields, ["max_connections_per_tenant"]);
        world.state.apply(Vec::new(), 1);
    }
}
