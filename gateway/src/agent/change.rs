//! Changes through the agent: to the controller, and then to the host.

use std::sync::Arc;

use log::warn;

use crate::{
    agent::{
        Agent,
        controller::{Controller, RestoreOptions},
    },
    events::idempotency::IdempotencyKey,
    model::{Change, OpContext, Principal, Problem, ProblemCode, State, operations::Policy},
    store::{Backup, RestorePlan},
};

impl Agent {
    /// Carries out an operation, and refreshes the host if the changes concern it. When this returns, the changes are
    /// in force. Returns true if anything was changed.
    ///
    /// # Errors
    /// The operation's problem, with nothing changed; or a failure of the store, the kernel or the refresh.
    pub async fn change(
        self: &Arc<Self>,
        principal: &Principal,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>
        + Send,
    ) -> Result<bool, Problem> {
        self.change_and_present(principal, None, operation, |_, changed| Ok(changed))
            .await
    }

    /// Carries out an operation like [`Self::change`], but only once for each idempotency key, and returns what
    /// `present` makes of the outcome. It gets true if anything was changed, by this request or by the one that it
    /// repeats. Unless the host must be refreshed first, it runs before any other change can.
    ///
    /// # Errors
    /// As for [`Self::change`], when the key was used by another request, and the error of `present`.
    pub async fn change_and_present<T, E: From<Problem>>(
        self: &Arc<Self>,
        principal: &Principal,
        idempotency_key: Option<IdempotencyKey>,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>
        + Send,
        present: impl FnOnce(&Controller, bool) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let mut controller = self.controller.lock().await;
        // The commit waits for the disk.
        let outcome = tokio::task::block_in_place(|| {
            controller.change(principal, idempotency_key, operation)
        })?;
        // A repeated request waits for the refresh of the original one, too.
        let is_refreshing = !outcome.committed && self.host.try_lock().is_err();
        if outcome.needs_host_refresh || is_refreshing {
            drop(controller);
            self.refresh_host_after_change().await?;
            controller = self.controller.lock().await;
        }
        present(&controller, outcome.changed)
    }

    /// Replaces all state by a backup, and refreshes the host. Returns the plan of what that changes.
    ///
    /// # Errors
    /// When the backup is refused, with nothing changed; or a failure of the store, the kernel or the refresh.
    pub async fn restore(
        self: &Arc<Self>,
        principal: &Principal,
        backup: Backup,
        options: RestoreOptions,
    ) -> Result<RestorePlan, Problem> {
        let plan = {
            let mut controller = self.controller.lock().await;
            tokio::task::block_in_place(|| controller.restore(principal, backup, options))?
        };
        if !options.dry_run {
            self.refresh_host_after_change().await?;
        }
        Ok(plan)
    }

    async fn refresh_host_after_change(self: &Arc<Self>) -> Result<(), Problem> {
        self.refresh_host().await.map_err(|error| {
            warn!("host sync: failed after a change error=\"{error:#}\"");
            Problem::new(
                ProblemCode::Internal,
                "the change is stored, but applying it to the host failed, and is tried again: see the agent's log",
            )
        })
    }
}
