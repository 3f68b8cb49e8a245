//! Events about the health of backends.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::model::{
    Identifiers, Kind, Name, Reference,
    event::{Action, Event, StoredEvent, from_changes::assign_ids},
    event_id::EventId,
    text,
};

/// Actor of events that health checks cause.
const ACTOR: &str = "health check";

/// Maximum length of a message, in characters.
const MAX_MESSAGE: usize = 300;

/// Change of the availability of a backend, or of a resource as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailabilityChange {
    /// Service.
    pub service: Reference,
    /// Resource of the service.
    pub resource: Name,
    /// Address of the backend; `None` for the resource as a whole.
    pub backend: Option<IpAddr>,
    /// True if new flows can be opened now.
    pub available: bool,
    /// Reason why they can't.
    pub reason: String,
}

/// Returns the events of changes that are stored together. `ticks` is the time of the event clock. Only the service's
/// tenant and the operator see such an event: it tells about servers of the tenant.
#[must_use]
pub fn events_for_availability(
    changes: &[AvailabilityChange],
    now: Timestamp,
    ticks: u64,
    identifiers: &mut dyn Identifiers,
) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> = changes
        .iter()
        .map(|change| StoredEvent {
            event: Event {
                id: EventId::default(),
                at: now,
                action: match (change.backend, change.available) {
                    (Some(_), false) => Action::Unhealthy,
                    (Some(_), true) => Action::Healthy,
                    (None, false) => Action::Unavailable,
                    (None, true) => Action::Available,
                },
                kind: Kind::Service,
                object: change.service.to_string(),
                service: None,
                link_id: None,
                message: message(change),
                fields: Vec::new(),
                actor: ACTOR.to_owned(),
                from: String::new(),
            },
            owner: change.service.tenant.clone(),
            acting: Some(change.service.tenant.clone()),
            decided: false,
        })
        .collect();
    assign_ids(&mut events, ticks, identifiers);
    events
}

fn message(change: &AvailabilityChange) -> String {
    let AvailabilityChange {
        resource, reason, ..
    } = change;
    let message = match (change.backend, change.available) {
        (Some(backend), true) => format!("backend {backend} of resource {resource}"),
        (Some(backend), false) => format!("backend {backend} of resource {resource}: {reason}"),
        (None, true) => format!("resource {resource}"),
        (None, false) => format!("resource {resource} {reason}"),
    };
    text::truncated(&message, MAX_MESSAGE)
}
