//! The whole store, written down and put back.

use jiff::Timestamp;
use log::info;

use crate::{
    agent::{
        core::{Core, refusal},
        deliveries::Deliveries,
        requests::Requests,
        sight::Sight,
    },
    model::{Code, Principal, Problem},
    store::{self, Before, Entry, StoreError, restored},
};

impl Core {
    /// The whole store, as a file's content.
    ///
    /// # Errors
    /// When it can't be read or copied.
    pub fn backup(&self) -> Result<Vec<u8>, Problem> {
        self.store.backup().map_err(refusal)
    }

    /// Puts what is in a backup in the place of everything; see [`restored`].
    ///
    /// # Errors
    /// When the backup is not understood, nothing having changed; or that store or kernel failed.
    pub fn restore(&mut self, principal: &Principal, entries: Vec<Entry>) -> Result<(), Problem> {
        // A backup replaces objects of every tenant, networks included.
        principal.require_operator()?;
        let not_understood = |error: StoreError| {
            Problem::new(Code::Invalid, format!("this can't be restored: {error}"))
        };
        let last = self.journal.last();
        let before = Before {
            state: &self.state,
            last_event: last,
        };
        let entries = restored(
            entries,
            Some(before),
            principal,
            Timestamp::now(),
            self.journal.most(),
            &mut self.identifiers,
        )
        .map_err(not_understood)?;
        self.store.replace(&entries).map_err(refusal)?;
        let Principal { name, from, .. } = principal;
        info!(
            "{name} ({from}) restored a backup with {} entries",
            entries.len()
        );
        let loaded = store::load(&*self.store).map_err(refusal)?;
        let services_before = std::mem::take(&mut self.state.services);
        self.state = loaded.state;
        self.stale = true;
        self.sight = Sight::everything();
        self.uninspected.extend(services_before.into_keys());
        self.uninspected.extend(self.state.services.keys().cloned());
        self.journal.replace(loaded.events, last);
        self.requests = Requests::new(loaded.requests);
        self.deliveries = Deliveries::new(loaded.cursors);
        self.reconcile().map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("the backup is restored, but the kernel did not take it yet: {error:#}"),
            )
        })
    }
}
