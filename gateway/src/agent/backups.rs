//! Backups of the whole store, and their restore while the agent runs.

use jiff::Timestamp;
use log::{error, info};

use crate::{
    agent::controller::{Controller, store_problem},
    events::{idempotency::IdempotencyCache, webhook_queue::WebhookQueue},
    host::dirty_set::HostDirtySet,
    model::{Principal, Problem, ProblemCode, event_id::EventClock},
    store::{
        self, Backup, Baseline, PreparedRestore, RestorePlan, RestoreTarget, StoreError,
        prepare_restore,
    },
};

/// How a backup is restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Nothing is changed; only the plan is made.
    pub dry_run: bool,
    /// The backup may be of another gateway.
    pub foreign: bool,
}

/// Returns the refusal of a backup that can't be restored.
pub fn restore_problem(error: StoreError) -> Problem {
    match error {
        error @ (StoreError::Backup(_) | StoreError::TooNew { .. }) => {
            Problem::new(ProblemCode::Invalid, error.to_string())
        }
        error => Problem::new(
            ProblemCode::Invalid,
            format!("this backup can't be restored: {error}"),
        ),
    }
}

impl Controller {
    /// Returns the whole store as a backup.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn backup(&self) -> Result<Backup, Problem> {
        store::back_up(&*self.store, Timestamp::now()).map_err(store_problem)
    }

    /// Puts a backup in the place of everything; see [`restored`]. Returns what that changes.
    ///
    /// # Errors
    /// When the backup is refused, nothing having changed; or the store or the kernel failed.
    pub fn restore(
        &mut self,
        principal: &Principal,
        backup: Backup,
        options: RestoreOptions,
    ) -> Result<RestorePlan, Problem> {
        // A backup replaces objects of every tenant, networks included.
        principal.require_operator()?;
        let last = self.event_log.last();
        let before = Baseline {
            state: &self.state,
            last_event: last,
        };
        let replacing = RestoreTarget {
            store: Some(self.store.identity().map_err(store_problem)?),
            accept_foreign: options.foreign,
        };
        let PreparedRestore { entries, plan } = prepare_restore(
            backup,
            Some(before),
            replacing,
            principal,
            Timestamp::now(),
            self.event_log.ring_capacity(),
            &mut self.identifiers,
        )
        .map_err(restore_problem)?;
        if options.dry_run {
            return Ok(plan);
        }
        self.store.replace(&entries).map_err(store_problem)?;
        let Principal { name, from, .. } = principal;
        info!(
            "backup: restored entries={} actor={name:?} from={from}",
            entries.len()
        );
        let loaded = store::load(&*self.store).map_err(store_problem)?;
        let services_before = std::mem::take(&mut self.state.services);
        self.state = loaded.state;
        self.needs_full_resync = true;
        self.host_dirty = HostDirtySet::resync_all();
        self.services_to_recheck.extend(services_before.into_keys());
        self.services_to_recheck
            .extend(self.state.services.keys().cloned());
        self.event_log.replace(loaded.events, &self.state, last);
        self.event_clock = EventClock::new(self.event_log.last());
        self.idempotency = IdempotencyCache::new(loaded.idempotency_records);
        self.webhook_queue = WebhookQueue::new(loaded.cursors);
        self.reconcile().map_err(|error| {
            error!("backup: not in the kernel yet error=\"{error:#}\"");
            Problem::new(
                ProblemCode::Internal,
                "the backup is restored, but the kernel did not take it, and it is being tried \
                 again: the agent's log has the details",
            )
        })?;
        Ok(plan)
    }
}
