//! Backup of the whole store, and restore while the agent runs.

use jiff::Timestamp;
use log::{error, info};

use crate::{
    agent::{
        controller::{Controller, commit::store_problem},
        drain::drained_backends,
    },
    events::{idempotency::IdempotencyCache, webhook_queue::WebhookQueue},
    host::dirty_set::HostDirtySet,
    model::{Principal, Problem, ProblemCode, event_id::EventClock},
    store::{
        self, Backup, Baseline, PreparedRestore, RestorePlan, RestoreTarget, StoreContents,
        StoreError, prepare_restore,
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
        store::back_up(&*self.desired.store, Timestamp::now()).map_err(store_problem)
    }

    /// Replaces all state by a backup; see [`prepare_restore`]. Returns the plan of what that changes.
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
        let desired = &mut self.desired;
        let baseline = Baseline {
            state: &desired.state,
            last_event: desired.event_log.last(),
        };
        let target = RestoreTarget {
            store: Some(desired.store.identity().map_err(store_problem)?),
            accept_foreign: options.foreign,
        };
        let PreparedRestore { entries, plan } = prepare_restore(
            backup,
            Some(baseline),
            target,
            principal,
            Timestamp::now(),
            desired.event_log.ring_capacity(),
            &mut desired.identifiers,
        )
        .map_err(restore_problem)?;
        if options.dry_run {
            return Ok(plan);
        }
        desired.store.replace(&entries).map_err(store_problem)?;
        let Principal { name, from, .. } = principal;
        info!(
            "backup: restored entries={} actor={name:?} from={from}",
            entries.len()
        );
        let loaded = store::load(&*desired.store).map_err(store_problem)?;
        self.replace_state(loaded);
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

    /// Replaces the desired state, and marks everything as dirty.
    fn replace_state(&mut self, loaded: StoreContents) {
        let (desired, observed) = (&mut self.desired, &mut self.observed);
        let services_before = std::mem::take(&mut desired.state.services);
        desired.state = loaded.state;
        self.datapath.needs_full_resync = true;
        observed.host_dirty = HostDirtySet::resync_all();
        observed
            .services_to_recheck
            .extend(services_before.into_keys());
        observed
            .services_to_recheck
            .extend(desired.state.services.keys().cloned());
        let services = desired.state.services.keys();
        observed.compiled.drained = drained_backends(&desired.state, services, Timestamp::now());
        let last = desired.event_log.last();
        desired
            .event_log
            .replace(loaded.events, &desired.state, last);
        desired.event_clock = EventClock::new(desired.event_log.last());
        desired.idempotency = IdempotencyCache::new(loaded.idempotency_records);
        desired.webhook_queue = WebhookQueue::new(loaded.cursors);
    }
}
