//! The keys of what is stored beside objects.

use crate::model::Reference;

/// Events.
pub const EVENTS: &str = "events";
/// How far webhooks have been told.
pub const CURSORS: &str = "cursors";
/// Requests that are not to be carried out twice.
pub const REQUESTS: &str = "requests";

/// An event's key: its number, so written that keys sort like numbers.
#[must_use]
pub fn event(id: u64) -> String {
    format!("{EVENTS}/{id:020}")
}

/// A webhook's cursor.
#[must_use]
pub fn cursor(webhook: &Reference) -> String {
    format!("{CURSORS}/{webhook}")
}

/// A request, by the hash of its key.
#[must_use]
pub fn request(hash: &str) -> String {
    format!("{REQUESTS}/{hash}")
}
