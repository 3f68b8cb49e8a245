//! Backups of the whole store, and their restore while the agent runs.

use jiff::Timestamp;
use log::{error, info};

use crate::{
    agent::{
        core::{Core, refusal},
        deliveries::Deliveries,
        requests::Requests,
        sight::Sight,
    },
    model::{Code, Principal, Problem, event_id::EventClock},
    store::{self, Backup, Before, Replacing, RestorePlan, Restored, StoreError, restored},
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
pub fn unfit(error: StoreError) -> Problem {
    match error {
        error @ (StoreError::Backup(_) | StoreError::TooNew { .. }) => {
            Problem::new(Code::Invalid, error.to_string())
        }
        error => Problem::new(
            Code::Invalid,
            format!("this backup can't be restored: {error}"),
        ),
    }
}

impl Core {
    /// Returns the whole store as a backup.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn backup(&self) -> Result<Backup, Problem> {
        store::back_up(&*self.store, Timestamp::now()).map_err(refusal)
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
        let last = self.journal.last();
        let before = Before {
            state: &self.state,
            last_event: last,
        };
        let replacing = Replacing {
            store: Some(self.store.identity().map_err(refusal)?),
            foreign: options.foreign,
        };
        let Restored { entries, plan } = restored(
            backup,
            Some(before),
            replacing,
            principal,
            Timestamp::now(),
            self.journal.most(),
            &mut self.identifiers,
        )
        .map_err(unfit)?;
        if options.dry_run {
            return Ok(plan);
        }
        self.store.replace(&entries).map_err(refusal)?;
        let Principal { name, from, .. } = principal;
        info!(
            "backup: restored entries={} actor={name:?} from={from}",
            entries.len()
        );
        let loaded = store::load(&*self.store).map_err(refusal)?;
        let services_before = std::mem::take(&mut self.state.services);
        self.state = loaded.state;
        self.stale = true;
        self.sight = Sight::everything();
        self.uninspected.extend(services_before.into_keys());
        self.uninspected.extend(self.state.services.keys().cloned());
        self.journal.replace(loaded.events, &self.state, last);
        self.event_clock = EventClock::new(self.journal.last());
        self.requests = Requests::new(loaded.requests);
        self.deliveries = Deliveries::new(loaded.cursors);
        self.reconcile().map_err(|error| {
            error!("backup: not in the kernel yet error=\"{error:#}\"");
            Problem::new(
                Code::Internal,
                "the backup is restored, but the kernel did not take it, and it is being tried \
                 again: the agent's log has the details",
            )
        })?;
        Ok(plan)
    }
}
