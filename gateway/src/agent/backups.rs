//! Backup of the whole store, and restore while the agent runs.

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

/// Options of a restore.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Make the plan only, and change nothing.
    pub dry_run: bool,
    /// Accept a backup of another gateway.
    pub foreign: bool,
}

/// Returns the problem for a backup that can't be restored.
pub fn restore_problem(error: StoreError) -> Problem {
    match error {
        error @ (StoreError::Backup(_) | StoreError::TooNew { .. }) => {
            Problem::new(ProblemCode::Invalid, error.to_string())
        }
        error => Problem::new(
            ProblemCode::Invalid,
            format!("the backup can't be restored: {error}"),
        ),
    }
}

impl Controller {
    /// Returns a backup of the whole store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn backup(&self) -> Result<Backup, Problem> {
        store::back_up(&*self.store, Timestamp::now()).map_err(store_problem)
    }

    /// Replaces all state by a backup; see [`restored`]. Returns the plan of what that changes.
    ///
    /// # Errors
    /// When the backup is refused, with nothing changed; or the store or the kernel failed.
    pub fn restore(
        &mut self,
        principal: &Principal,
        backup: Backup,
        options: RestoreOptions,
    ) -> Result<RestorePlan, Problem> {
        // A backup replaces objects of every tenant, including networks.
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
            error!("backup: restored but not in the maps yet error=\"{error:#}\"");
            Problem::new(
                ProblemCode::Internal,
                "the backup is restored, but writing it to the data path failed, and is tried \
                 again: see the agent's log",
            )
        })?;
        Ok(plan)
    }
}
