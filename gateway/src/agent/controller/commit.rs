//! Changes: from an operation to the commit in the store and the updated maps.

use std::collections::BTreeSet;

use jiff::Timestamp;
use log::{error, info};

use crate::{
    agent::controller::{Controller, Desired},
    events::{
        event_log::Eviction,
        idempotency::{IdempotencyCache, IdempotencyKey},
    },
    host::dirty_set::HostDirtySet,
    model::{
        Change, HostAddresses, HostUses, Object, OpContext, Principal, Problem, ProblemCode,
        Reference, State,
        authorization::authorize,
        event::{StoredEvent, events_for_changes},
        event_id::EventId,
        operations::Policy,
        tenant_size,
    },
    store::{self, IdempotencyRecord, StoreError},
};

/// Outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeOutcome {
    /// True if anything was changed, by this request or by the one that it repeats.
    pub changed: bool,
    /// True if this request changed something itself.
    pub committed: bool,
    /// True if the outcome is in force only after a refresh of the host.
    pub needs_host_refresh: bool,
}

impl Controller {
    /// Carries out an operation: authorizes its changes, commits them to the store, and reconciles the maps. When this
    /// returns, packets are handled accordingly, except for what needs a refresh of the host. With an idempotency key,
    /// a repeated request is not carried out again.
    ///
    /// # Errors
    /// The operation's problem, with nothing changed; a key that was used by another request; or a failure of the
    /// store or the kernel.
    pub fn change(
        &mut self,
        principal: &Principal,
        idempotency_key: Option<IdempotencyKey>,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<ChangeOutcome, Problem> {
        if let Some(idempotency_key) = &idempotency_key
            && self
                .desired
                .idempotency
                .is_replay(idempotency_key, &self.desired.state)?
        {
            return Ok(ChangeOutcome {
                changed: true,
                committed: false,
                needs_host_refresh: self.needs_host_refresh(),
            });
        }
        let now = Timestamp::now();
        let host = (&self.observed.compiled.host, &self.observed.host_uses);
        let changes = self.desired.decide(principal, host, now, operation)?;
        if changes.is_empty() {
            return Ok(ChangeOutcome {
                changed: false,
                committed: false,
                needs_host_refresh: self.needs_host_refresh(),
            });
        }
        let (revision, evictions) =
            self.desired
                .commit(principal, &changes, idempotency_key, now)?;
        let needs_host_refresh = self.mark_dirty(&changes);
        let services: BTreeSet<Reference> = changed_services(&changes).collect();
        let interfaces_moved = changes
            .iter()
            .any(|change| matches!(change.object(), Object::Network(..)));
        let state = &mut self.desired.state;
        state.apply(changes, revision);
        if interfaces_moved {
            let dirty_objects = &mut self.datapath.dirty_objects;
            self.observed
                .compiled
                .mark_host_address_users(state, dirty_objects);
        }
        self.desired
            .webhook_queue
            .record_evictions(state, &evictions);
        self.observe_drains(&services, now);
        self.reconcile().map_err(|error| {
            error!("controller: change not in the maps yet error=\"{error:#}\"");
            Problem::new(
                ProblemCode::Internal,
                "the change is stored, but writing it to the data path failed, and is tried again: \
                 see the agent's log",
            )
        })?;
        Ok(ChangeOutcome {
            changed: true,
            committed: true,
            needs_host_refresh,
        })
    }

    /// Returns true if an earlier change is not in force yet, because its refresh of the host has failed.
    fn needs_host_refresh(&self) -> bool {
        !self.in_sync() || !self.observed.host_dirty.is_empty()
    }

    /// Marks what the changes concern as dirty, before they are applied to the state. Returns true if parts of the
    /// host are.
    fn mark_dirty(&mut self, changes: &[Change]) -> bool {
        let state = &self.desired.state;
        self.datapath.dirty_objects.add_changes(state, changes);
        let mut host_dirty = HostDirtySet::default();
        host_dirty.add_changes(state, changes);
        let is_host_dirty = !host_dirty.is_empty();
        self.observed.host_dirty.merge(host_dirty);
        self.observed
            .services_to_recheck
            .extend(changed_services(changes));
        self.observed.track_addresses(state, changes);
        is_host_dirty
    }
}

impl Desired {
    /// Runs an operation on the state, and authorizes its changes.
    fn decide(
        &mut self,
        principal: &Principal,
        (host, host_uses): (&HostAddresses, &HostUses),
        now: Timestamp,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Result<Vec<Change>, Problem> {
        let mut context = OpContext {
            now,
            actor: &principal.name,
            is_operator: principal.is_operator(),
            identifiers: &mut self.identifiers,
            host,
            host_uses,
            event_boundary: EventId::new(self.event_clock.next_ticks(), 0),
        };
        let changes = operation(&self.state, &mut context, &self.policy)?;
        authorize(&self.state, &changes, principal)?;
        if !changes.is_empty() {
            tenant_size::check_tenant_sizes(&self.state, &changes)?;
        }
        Ok(changes)
    }

    /// Commits changes to the store, with their events and the idempotency key. Returns the revision, and the events
    /// that were evicted from tenants' trails. The changes are not applied to the state yet.
    fn commit(
        &mut self,
        principal: &Principal,
        changes: &[Change],
        idempotency_key: Option<IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(u64, Vec<Eviction>), Problem> {
        let ticks = self.event_clock.next_ticks();
        let events = events_for_changes(
            &self.state,
            changes,
            principal,
            now,
            ticks,
            &mut self.identifiers,
        );
        let record = idempotency_key.and_then(|key| {
            let object = changes.iter().find_map(|change| match change {
                Change::Put(object) => Some(object),
                Change::Delete(_) => None,
            })?;
            let record = IdempotencyCache::new_record(&key, object, now);
            Some((key, record))
        });
        let writes = self.writes(changes, &events, record.as_ref());
        let revision = writes
            .and_then(|writes| self.store.commit(&writes))
            .map_err(|error| commit_problem(principal, error))?;
        log_changes(changes, principal, revision);
        for webhook in deleted_webhooks(changes) {
            self.webhook_queue.remove(&webhook);
        }
        for webhook in self.webhook_queue.unsaved() {
            self.webhook_queue.cursor_written(&webhook, revision);
        }
        let evictions = self.event_log.append(events, revision);
        for change in changes {
            if let Change::Delete(Object::Tenant(record)) = change {
                self.event_log.remove_tenant(&record.meta.name);
            }
        }
        if let Some((key, record)) = record {
            self.idempotency.append(key, record, revision);
        }
        Ok((revision, evictions))
    }

    /// Returns the writes of a commit.
    fn writes(
        &self,
        changes: &[Change],
        events: &[StoredEvent],
        record: Option<&(IdempotencyKey, IdempotencyRecord)>,
    ) -> Result<Vec<store::Write>, StoreError> {
        let mut writes = store::writes_for_changes(changes)?;
        writes.extend(self.event_log.writes(events)?);
        if let Some((key, record)) = record {
            writes.extend(self.idempotency.writes(key, record)?);
        }
        let mut unsaved = self.webhook_queue.unsaved();
        for webhook in deleted_webhooks(changes) {
            writes.extend(self.webhook_queue.cursor_delete(&webhook));
            unsaved.retain(|other| *other != webhook);
        }
        for webhook in unsaved {
            writes.extend(self.webhook_queue.cursor_write(&webhook));
        }
        Ok(writes)
    }
}

fn log_changes(changes: &[Change], principal: &Principal, revision: u64) {
    let Principal { name, from, .. } = principal;
    for change in changes {
        let done = match change {
            Change::Put(_) => "put",
            Change::Delete(_) => "deleted",
        };
        info!(
            "controller: object {done} key={} revision={revision} actor={name:?} from={from}",
            change.object().key()
        );
    }
}

fn changed_services(changes: &[Change]) -> impl Iterator<Item = Reference> {
    changes.iter().filter_map(|change| match change.object() {
        object @ Object::Service(..) => Some(object.reference()),
        _ => None,
    })
}

fn deleted_webhooks(changes: &[Change]) -> impl Iterator<Item = Reference> {
    changes.iter().filter_map(|change| match change {
        Change::Delete(object @ Object::Webhook(..)) => Some(object.reference()),
        _ => None,
    })
}

/// Returns the problem for a failed commit, and logs it unless it is a conflict of versions. Only the operator gets the
/// cause: it names files of the host.
fn commit_problem(principal: &Principal, error: StoreError) -> Problem {
    match error {
        StoreError::Conflict(_) => Problem::new(ProblemCode::VersionConflict, error.to_string()),
        error if principal.is_operator() => store_problem(error),
        error => {
            error!("store: failed error=\"{error}\"");
            Problem::new(
                ProblemCode::StoreUnavailable,
                "nothing was changed, because the store can't be written: try again later, or ask the operator",
            )
        }
    }
}

/// Returns the operator's problem for a failure of the store, and logs it.
pub(super) fn store_problem(error: StoreError) -> Problem {
    error!("store: failed error=\"{error}\"");
    Problem::new(
        ProblemCode::StoreUnavailable,
        format!("nothing was changed: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Access;

    #[test]
    fn only_the_operator_gets_the_cause_of_a_failed_commit() {
        let failure = || StoreError::File {
            path: "/var/lib/plgw/state.db".to_owned(),
            error: std::io::Error::other("no space"),
        };
        let operator = Principal::operator("operator", "socket");
        let tenant = Principal {
            access: Access::Tenants(BTreeMap::new()),
            ..operator.clone()
        };
        let shown = commit_problem(&operator, failure()).detail;
        assert!(shown.contains("/var/lib/plgw/state.db"), "{shown}");
        let shown = commit_problem(&tenant, failure()).detail;
        assert!(
            !shown.contains('/') && !shown.contains("no space"),
            "{shown}"
        );
    }
}
