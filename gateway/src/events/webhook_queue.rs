//! The webhook queue: delivery progress of each webhook, and the time of its next attempt. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    events::event_log::{EventLog, Eviction},
    model::{
        Kind, Record, Reference, State, Webhook,
        event::{Action, StoredEvent},
        event_id::EventId,
        text,
        webhook::WebhookStatus,
    },
    store::{Cursor, Write, keys},
};

/// Delay of the first attempt after a failure. It doubles with each further failure.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Upper bound of the delay.
const MAX_BACKOFF: Duration = Duration::from_secs(3_600);
/// Time of continuous failure after which an event is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(86_400);

/// Number of characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;

/// Returns true if the event is the creation of the webhook itself.
fn is_creation(recorded: &StoredEvent, webhook: &Reference) -> bool {
    let event = &recorded.event;
    event.kind == Kind::Webhook
        && event.action == Action::Created
        && event.object == webhook.to_string()
}

/// Delivery progress of one webhook.
#[derive(Clone, Debug)]
struct DeliveryProgress {
    /// Identifier of the webhook, which distinguishes it from an earlier one of the same name.
    uid: Uuid,
    /// Last event that needs no further delivery.
    position: EventId,
    /// Last event that was delivered or given up.
    delivered: Option<EventId>,
    /// Number of events that were evicted before their delivery, or given up.
    lost: u64,
    failures: u32,
    last_error: Option<String>,
    failing_since: Option<Instant>,
    /// Time of the next attempt after a failure.
    due: Option<Instant>,
    in_flight: Option<EventId>,
    /// True if the event in flight was evicted, so that a failure loses it.
    final_attempt: bool,
}

/// Delivery progress of all webhooks.
#[derive(Debug, Default)]
pub struct WebhookQueue {
    progress: HashMap<Reference, DeliveryProgress>,
    /// Stored cursors, with their revisions.
    stored: HashMap<String, (Cursor, u64)>,
    /// Webhooks that may have an event to deliver.
    pending: BTreeSet<Reference>,
    /// Last event whose webhooks were added to `pending`.
    dispatched_up_to: EventId,
    /// Webhooks whose lost events are not stored yet.
    unsaved: BTreeSet<Reference>,
}

/// One delivery of an event to a webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Reference of the webhook.
    pub reference: Reference,
    /// Identifier of the webhook, which distinguishes it from an earlier one of the same name.
    pub uid: Uuid,
    /// The webhook.
    pub webhook: Webhook,
    /// The event.
    pub recorded: StoredEvent,
}

/// Deliveries that are due.
#[derive(Debug, Default)]
pub struct DueDeliveries {
    /// Deliveries to be made now.
    pub deliveries: Vec<Delivery>,
    /// Time of the next retry, if any.
    pub next: Option<Instant>,
}

impl WebhookQueue {
    /// Returns the queue with the stored cursors.
    #[must_use]
    pub fn new(stored: Vec<(String, Cursor, u64)>) -> Self {
        let stored = stored
            .into_iter()
            .map(|(webhook, cursor, revision)| (webhook, (cursor, revision)));
        Self {
            stored: stored.collect(),
            ..Self::default()
        }
    }

    fn progress(
        &mut self,
        reference: &Reference,
        record: &Record<Webhook>,
    ) -> &mut DeliveryProgress {
        let stored = self.stored.get(&reference.to_string());
        // The stored cursor may belong to an earlier webhook of the same name.
        let Cursor { delivered, lost } = stored.map_or(Cursor::default(), |(cursor, _)| *cursor);
        let since = record.object.since;
        let fresh = || DeliveryProgress {
            uid: record.meta.uid,
            position: delivered.unwrap_or_default().max(since),
            delivered: delivered.filter(|delivered| *delivered > since),
            lost,
            failures: 0,
            last_error: None,
            failing_since: None,
            due: None,
            in_flight: None,
            final_attempt: false,
        };
        let progress = self.progress.entry(reference.clone()).or_insert_with(fresh);
        if progress.uid != record.meta.uid {
            *progress = fresh();
        }
        progress
    }

    /// Returns the deliveries that are due. They count as in flight until [`Self::record_outcome`] is called.
    pub fn take_due(&mut self, state: &State, event_log: &EventLog, now: Instant) -> DueDeliveries {
        for recorded in event_log.events_after(self.dispatched_up_to) {
            for tenant in recorded.viewers() {
                let webhooks = State::owned_by(&state.webhooks, tenant);
                let webhooks = webhooks.map(|(webhook, _)| webhook.clone());
                self.pending.extend(webhooks);
            }
        }
        self.dispatched_up_to = event_log.last();
        let mut batch = DueDeliveries::default();
        for reference in std::mem::take(&mut self.pending) {
            let Some(record) = state.webhooks.get(&reference) else {
                continue;
            };
            let progress = self.progress(&reference, record);
            if progress.in_flight.is_some() {
                continue;
            }
            let mut events = event_log.tenant_events_after(&reference.tenant, progress.position);
            // A webhook does not receive the event of its own creation.
            let next_event = events.find(|recorded| !is_creation(recorded, &reference));
            let next_event = next_event.cloned();
            drop(events);
            let Some(recorded) = next_event else {
                progress.position = event_log.last().max(progress.position);
                continue;
            };
            if let Some(due) = progress.due.filter(|due| *due > now) {
                batch.next = Some(batch.next.map_or(due, |next| next.min(due)));
                self.pending.insert(reference);
                continue;
            }
            progress.in_flight = Some(recorded.event.id);
            batch.deliveries.push(Delivery {
                uid: record.meta.uid,
                webhook: record.object.clone(),
                recorded,
                reference,
            });
        }
        batch
    }

    /// Records the outcome of a delivery. Returns true if the event was delivered or given up.
    pub fn record_outcome(
        &mut self,
        delivery: &Delivery,
        outcome: Result<(), String>,
        now: Instant,
    ) -> bool {
        let Some(progress) = self.progress.get_mut(&delivery.reference) else {
            return false;
        };
        if progress.uid != delivery.uid {
            return false;
        }
        progress.in_flight = None;
        let last_chance = std::mem::take(&mut progress.final_attempt);
        self.pending.insert(delivery.reference.clone());
        let id = delivery.recorded.event.id;
        let Err(error) = outcome else {
            progress.position = id;
            progress.delivered = Some(id);
            progress.failures = 0;
            progress.last_error = None;
            progress.failing_since = None;
            progress.due = None;
            return true;
        };
        let since = *progress.failing_since.get_or_insert(now);
        let backoff = INITIAL_BACKOFF.saturating_mul(1 << progress.failures.min(16));
        progress.failures += 1;
        // Parts of the error may come from the receiver.
        progress.last_error = Some(text::truncated(&error, MAX_ERROR_CHARS));
        progress.due = Some(now + backoff.min(MAX_BACKOFF));
        let given_up = now.duration_since(since) >= GIVE_UP_AFTER;
        if !given_up && !last_chance {
            return false;
        }
        progress.position = id;
        progress.delivered = Some(id);
        progress.lost += 1;
        if given_up {
            progress.failing_since = None;
        }
        true
    }

    /// Returns the write that stores the delivery cursor of a webhook.
    #[must_use]
    pub fn cursor_write(&self, reference: &Reference) -> Option<Write> {
        let progress = self.progress.get(reference)?;
        let cursor = Cursor {
            delivered: progress.delivered,
            lost: progress.lost,
        };
        let stored = self.stored.get(&reference.to_string());
        Some(Write {
            key: keys::cursor(reference),
            expected: stored.map_or(0, |(_, revision)| *revision),
            value: Some(serde_json::to_string(&cursor).ok()?),
        })
    }

    /// Records that the cursor is stored.
    pub fn cursor_written(&mut self, reference: &Reference, revision: u64) {
        if let Some(progress) = self.progress.get(reference) {
            let cursor = Cursor {
                delivered: progress.delivered,
                lost: progress.lost,
            };
            self.stored
                .insert(reference.to_string(), (cursor, revision));
        }
        self.unsaved.remove(reference);
    }

    /// Returns the write that deletes the cursor of a deleted webhook.
    #[must_use]
    pub fn cursor_delete(&self, reference: &Reference) -> Option<Write> {
        let (_, revision) = self.stored.get(&reference.to_string())?;
        Some(Write {
            key: keys::cursor(reference),
            expected: *revision,
            value: None,
        })
    }

    /// Removes a deleted webhook.
    pub fn remove(&mut self, reference: &Reference) {
        self.stored.remove(&reference.to_string());
        self.progress.remove(reference);
        self.unsaved.remove(reference);
    }

    /// Counts the evicted events that webhooks of their tenants have not received.
    pub fn record_evictions(&mut self, state: &State, losses: &[Eviction]) {
        for (tenant, id) in losses {
            for (reference, record) in State::owned_by(&state.webhooks, tenant) {
                let progress = self.progress(reference, record);
                if progress.in_flight == Some(*id) {
                    progress.final_attempt = true;
                } else if *id > progress.position {
                    progress.lost += 1;
                    self.unsaved.insert(reference.clone());
                }
            }
        }
    }

    /// Returns the webhooks whose lost events are not stored yet.
    #[must_use]
    pub fn unsaved(&self) -> Vec<Reference> {
        self.unsaved.iter().cloned().collect()
    }

    /// Returns the delivery status of a webhook, as shown to users.
    #[must_use]
    pub fn status(&self, reference: &Reference, record: &Record<Webhook>) -> WebhookStatus {
        let progress = self.progress.get(reference);
        match progress.filter(|progress| progress.uid == record.meta.uid) {
            None => WebhookStatus::default(),
            Some(progress) => WebhookStatus {
                delivered: progress.delivered,
                failures: progress.failures,
                events_lost: progress.lost,
                last_error: progress.last_error.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
