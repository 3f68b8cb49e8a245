//! The keys of what is stored beside objects.

use crate::model::{Reference, event_id::EventId};

/// Events.
pub const EVENTS: &str = "events";
/// How far webhooks have been told.
pub const CURSORS: &str = "cursors";
/// Requests that are not to be carried out twice.
pub const IDEMPOTENCY: &str = "requests";

/// Returns an event's key. Earlier programs wrote numbers.
#[must_use]
pub fn event(id: EventId) -> String {
    match id.number() {
        Some(number) => format!("{EVENTS}/{number:020}"),
        None => format!("{EVENTS}/{id}"),
    }
}

/// A webhook's cursor.
#[must_use]
pub fn cursor(webhook: &Reference) -> String {
    format!("{CURSORS}/{webhook}")
}

/// A request, by the hash of its key.
#[must_use]
pub fn idempotency(hash: &str) -> String {
    format!("{IDEMPOTENCY}/{hash}")
}
