//! The whole store, written down and put back.

use log::info;

use crate::{
    agent::{
        core::{Core, refusal},
        deliveries::Deliveries,
        requests::Requests,
        sight::Sight,
    },
    model::{Code, Identifiers as _, Object, Principal, Problem},
    store::{self, Entry, StoreError},
};

impl Core {
    /// The whole store, as a file's content.
    ///
    /// # Errors
    /// When it can't be read or copied.
    pub fn backup(&self) -> Result<Vec<u8>, Problem> {
        self.store.backup().map_err(refusal)
    }

    /// Puts what is in a backup in the place of everything. Connections that are not just as they were
    /// then are approved anew, so that flows that were cut since stay dead.
    ///
    /// # Errors
    /// When the backup is not understood, nothing having changed; or that store or kernel failed.
    pub fn restore(&mut self, principal: &Principal, entries: Vec<Entry>) -> Result<(), Problem> {
        let not_understood = |error: StoreError| {
            Problem::new(Code::Invalid, format!("this can't be restored: {error}"))
        };
        let mut entries = entries;
        for entry in &mut entries {
            if !entry.key.starts_with("endpoints/") {
                continue;
            }
            let mut object = Object::decode(&entry.key, &entry.value, entry.revision)
                .map_err(|error| not_understood(error.into()))?;
            let current = self.state.endpoints.get(&object.reference());
            if let Object::Endpoint(_, record) = &mut object {
                let then = &mut record.object.connection;
                let stayed = current.is_some_and(|now| {
                    let now = &now.object.connection;
                    (now.link_id, now.generation) == (then.link_id, then.generation)
                });
                if then.generation != 0 && !stayed {
                    let before = then.generation;
                    then.generation = self.identifiers.number(&|number| number == before);
                }
            }
            entry.value = object
                .encode()
                .map_err(|error| not_understood(error.into()))?;
        }
        store::interpret(entries.clone()).map_err(not_understood)?;
        let last = self.journal.last();
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
