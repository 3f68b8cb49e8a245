//! How far webhooks have been told, and when the next attempt is due. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    agent::journal::Journal,
    api::view::WebhookStatus,
    model::{Record, Reference, State, Webhook, event::Recorded},
    store::{Write, keys},
};

/// The first attempt after a failure comes after so long; each further one after twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// But after this at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// An event that could not be delivered for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(86_400);

/// How one webhook is.
#[derive(Clone, Debug)]
struct Progress {
    /// Which webhook of the name it is.
    uid: Uuid,
    delivered: u64,
    failures: u32,
    last_error: Option<String>,
    failing_since: Option<Instant>,
    /// When it is next tried.
    due: Option<Instant>,
    under_way: bool,
}

/// All webhooks.
#[derive(Debug, Default)]
pub struct Deliveries {
    progress: HashMap<Reference, Progress>,
    /// How far the store knows them, with the revision.
    stored: HashMap<String, (u64, u64)>,
    /// Those that there may be something to tell.
    concerned: BTreeSet<Reference>,
    /// The last event of which it was found out whom it concerns.
    distributed: u64,
}

/// Something to be sent.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// To which webhook.
    pub reference: Reference,
    /// Which one of the name it is.
    pub uid: Uuid,
    /// The webhook.
    pub webhook: Webhook,
    /// What happened.
    pub recorded: Recorded,
}

/// What is to be done now.
#[derive(Debug, Default)]
pub struct Turn {
    /// What is to be sent.
    pub deliveries: Vec<Delivery>,
    /// When there is more to do, if nothing happens before.
    pub next: Option<Instant>,
}

impl Deliveries {
    /// From what the store has.
    #[must_use]
    pub fn new(stored: Vec<(String, u64, u64)>) -> Self {
        let stored = stored
            .into_iter()
            .map(|(webhook, delivered, revision)| (webhook, (delivered, revision)));
        Self {
            stored: stored.collect(),
            ..Self::default()
        }
    }

    fn progress(&mut self, reference: &Reference, record: &Record<Webhook>) -> &mut Progress {
        let stored = self.stored.get(&reference.to_string());
        // What is stored may be of an earlier webhook of the name.
        let delivered = stored.map_or(0, |(delivered, _)| *delivered);
        let fresh = || Progress {
            uid: record.meta.uid,
            delivered: delivered.max(record.object.since),
            failures: 0,
            last_error: None,
            failing_since: None,
            due: None,
            under_way: false,
        };
        let progress = self.progress.entry(reference.clone()).or_insert_with(fresh);
        if progress.uid != record.meta.uid {
            *progress = fresh();
        }
        progress
    }

    /// What is due now. What is returned counts as under way until [`Self::done`] is called.
    pub fn turn(&mut self, state: &State, journal: &Journal, now: Instant) -> Turn {
        for recorded in journal.after(self.distributed) {
            for tenant in recorded.tenants() {
                let webhooks = State::owned(&state.webhooks, tenant);
                let webhooks = webhooks.map(|(webhook, _)| webhook.clone());
                self.concerned.extend(webhooks);
            }
        }
        self.distributed = journal.last();
        let mut turn = Turn::default();
        for reference in std::mem::take(&mut self.concerned) {
            let Some(record) = state.webhooks.get(&reference) else {
                continue;
            };
            let progress = self.progress(&reference, record);
            if progress.under_way {
                continue;
            }
            let mut pending = journal.after(progress.delivered);
            let Some(recorded) = pending.find(|recorded| recorded.concerns(&reference.tenant))
            else {
                progress.delivered = journal.last().max(progress.delivered);
                continue;
            };
            if let Some(due) = progress.due.filter(|due| *due > now) {
                turn.next = Some(turn.next.map_or(due, |next| next.min(due)));
                self.concerned.insert(reference);
                continue;
            }
            progress.under_way = true;
            turn.deliveries.push(Delivery {
                uid: record.meta.uid,
                webhook: record.object.clone(),
                recorded: recorded.clone(),
                reference,
            });
        }
        turn
    }

    /// Takes in how a delivery went. Says whether the event is done with, delivered or given up.
    pub fn done(&mut self, delivery: &Delivery, outcome: Result<(), String>, now: Instant) -> bool {
        let Some(progress) = self.progress.get_mut(&delivery.reference) else {
            return false;
        };
        if progress.uid != delivery.uid {
            return false;
        }
        progress.under_way = false;
        self.concerned.insert(delivery.reference.clone());
        let Err(error) = outcome else {
            progress.delivered = delivery.recorded.event.id;
            progress.failures = 0;
            progress.last_error = None;
            progress.failing_since = None;
            progress.due = None;
            return true;
        };
        let since = *progress.failing_since.get_or_insert(now);
        let pause = FIRST_PAUSE.saturating_mul(1 << progress.failures.min(16));
        progress.failures += 1;
        progress.last_error = Some(error);
        progress.due = Some(now + pause.min(LONGEST_PAUSE));
        if now.duration_since(since) < GIVE_UP {
            return false;
        }
        progress.delivered = delivery.recorded.event.id;
        progress.failing_since = None;
        true
    }

    /// The write that puts down how far a webhook has been told.
    #[must_use]
    pub fn write(&self, reference: &Reference) -> Option<Write> {
        let delivered = self.progress.get(reference)?.delivered;
        let stored = self.stored.get(&reference.to_string());
        Some(Write {
            key: keys::cursor(reference),
            expected: stored.map_or(0, |(_, revision)| *revision),
            value: Some(delivered.to_string()),
        })
    }

    /// Takes in that the store has it.
    pub fn written(&mut self, reference: &Reference, revision: u64) {
        if let Some(progress) = self.progress.get(reference) {
            let stored = (progress.delivered, revision);
            self.stored.insert(reference.to_string(), stored);
        }
    }

    /// The write that forgets a webhook that is deleted.
    #[must_use]
    pub fn forget(&self, reference: &Reference) -> Option<Write> {
        let (_, revision) = self.stored.get(&reference.to_string())?;
        Some(Write {
            key: keys::cursor(reference),
            expected: *revision,
            value: None,
        })
    }

    /// Takes in that the store has forgotten it.
    pub fn forgotten(&mut self, reference: &Reference) {
        self.stored.remove(&reference.to_string());
        self.progress.remove(reference);
    }

    /// How sending goes, for users.
    #[must_use]
    pub fn status(&self, reference: &Reference, record: &Record<Webhook>) -> WebhookStatus {
        let progress = self.progress.get(reference);
        match progress.filter(|progress| progress.uid == record.meta.uid) {
            None => WebhookStatus::default(),
            Some(progress) => WebhookStatus {
                delivered: progress.delivered,
                failures: progress.failures,
                last_error: progress.last_error.clone(),
            },
        }
    }
}
