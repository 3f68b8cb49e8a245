//! Keys of the stored entries that are not objects.

use crate::model::{Reference, event_id::EventId};

/// Prefix of event keys.
pub const EVENTS: &str = "events";
/// Prefix of the keys of webhooks' delivery cursors.
pub const CURSORS: &str = "cursors";
/// Prefix of the keys of idempotency records.
pub const IDEMPOTENCY: &str = "requests";

/// Returns the key of an event. Events of earlier programs have numbers, which are padded so that keys sort by age.
#[must_use]
pub fn event(id: EventId) -> String {
    match id.number() {
        Some(number) => format!("{EVENTS}/{number:020}"),
        None => format!("{EVENTS}/{id}"),
    }
}

/// Returns the key of a webhook's delivery cursor.
#[must_use]
pub fn cursor(webhook: &Reference) -> String {
    format!("{CURSORS}/{webhook}")
}

/// Returns the key of an idempotency record, given the hash of the idempotency key.
#[must_use]
pub fn idempotency(hash: &str) -> String {
    format!("{IDEMPOTENCY}/{hash}")
}
