//! Events: records of changes, with their actor and origin. Pure.

mod from_changes;
mod from_health;

pub use from_changes::events_for_changes;
pub use from_health::{AvailabilityChange, events_for_availability};

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Access, Kind, Name, Principal, Reference, event_id::EventId};

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
    /// A backend of the service fails its health checks, or can't be reached.
    Unhealthy,
    /// A backend of the service passes its health checks again.
    Healthy,
    /// A resource of the service has no healthy backend.
    Unavailable,
    /// A resource of the service has a healthy backend again.
    Available,
}

impl Action {
    /// Returns true if health checks cause the event, and no caller.
    #[must_use]
    pub const fn is_about_health(self) -> bool {
        matches!(
            self,
            Self::Unhealthy | Self::Healthy | Self::Unavailable | Self::Available
        )
    }
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
            Self::Unhealthy => "unhealthy",
            Self::Healthy => "healthy",
            Self::Unavailable => "unavailable",
            Self::Available => "available",
        })
    }
}

/// Record of one change of an object, or of the health of a service's backends.
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
    /// Message of the connection request, reason of the decision, or description of the health.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Fields that were changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Name of the actor; `health check` for a change of health. An actor of another tenant is shown as `the other side`.
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

#[cfg(test)]
mod tests;
