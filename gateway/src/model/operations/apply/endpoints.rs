//! Endpoints of a manifest, and the states of their connections.

use std::collections::BTreeMap;

use crate::model::{
    Change, ConnectionState, Decision, Kind, Object, Permission, Problem, ProblemCode, Reference,
    authorization::require_provider,
    manifest::{ConnectionEntry, Manifest},
    operations::{
        self,
        apply::session::{ApplySession, required_reference},
        connection::with_connection_state,
        endpoint::create_endpoint_for,
        update_endpoint,
    },
    record::check_text,
};

impl ApplySession<'_, '_> {
    /// Applies the endpoints of the manifest, and decides about their connections.
    pub(super) fn apply_endpoints(&mut self, manifest: &Manifest) -> Result<(), Problem> {
        let mut connections: BTreeMap<&Reference, &ConnectionEntry> = manifest
            .connections
            .iter()
            .map(|entry| (&entry.endpoint, entry))
            .collect();
        for entry in &manifest.endpoints {
            let reference = required_reference(Kind::Endpoint, entry)?;
            let request = entry.request.clone();
            let changes = if self.state.endpoints.contains_key(&reference) {
                update_endpoint(&self.state, self.context, &reference, request)
            } else {
                // Before a free address is searched, which takes time.
                self.principal
                    .require(&entry.tenant, Permission::Endpoints)?;
                let trusted = self.principal.is_operator();
                let (tenant, policy) = (&entry.tenant, self.policy);
                let created = create_endpoint_for(
                    &self.state,
                    self.context,
                    policy,
                    tenant,
                    request,
                    trusted,
                );
                match connections.get(&reference).copied() {
                    Some(connection) if trusted => {
                        connections.remove(&reference);
                        created.map(|changes| self.set_connection_state(changes, connection))
                    }
                    _ => created,
                }
            };
            self.record_result(Kind::Endpoint, &reference.to_string(), changes)?;
        }
        for (reference, entry) in connections {
            let changes = self.decide(entry);
            self.record_result(Kind::Endpoint, &reference.to_string(), changes)?;
        }
        Ok(())
    }

    /// Returns the changes that create an endpoint, with its connection in the requested state.
    fn set_connection_state(
        &mut self,
        mut changes: Vec<Change>,
        requested: &ConnectionEntry,
    ) -> Vec<Change> {
        for change in &mut changes {
            if let Change::Put(Object::Endpoint(_, record)) = change {
                let connection = &record.object.connection;
                if (connection.state, &connection.reason) == (requested.state, &requested.reason) {
                    continue;
                }
                let generation = match requested.state {
                    ConnectionState::Approved => self.context.identifiers.number(&|_| false),
                    _ => 0,
                };
                let reason = requested.reason.clone();
                *record = with_connection_state(
                    self.context,
                    record,
                    requested.state,
                    generation,
                    reason,
                );
                if requested.state == ConnectionState::Pending {
                    record.object.connection.decided_by = None;
                    record.object.connection.decided_at = None;
                }
            }
        }
        changes
    }

    /// Returns the changes of the decision that brings a connection into the requested state.
    fn decide(&mut self, requested: &ConnectionEntry) -> Result<Vec<Change>, Problem> {
        check_text("reason", &requested.reason)?;
        let found = self.state.endpoints.get(&requested.endpoint);
        let record =
            found.ok_or_else(|| Problem::not_found(Kind::Endpoint, &requested.endpoint))?;
        let connection = &record.object.connection;
        let decision = match requested.state {
            state if state == connection.state => return Ok(Vec::new()),
            ConnectionState::Approved => Decision::Approve,
            ConnectionState::Rejected => Decision::Reject,
            ConnectionState::Disconnected => Decision::Remove,
            ConnectionState::Pending => {
                return Err(Problem::new(
                    ProblemCode::WrongState,
                    format!(
                        "a connection that is {} can't become Pending",
                        connection.state
                    ),
                ));
            }
        };
        let service = record.object.service_identity.reference.clone();
        // Checked first, because later problems name the service and thereby its provider.
        require_provider(self.principal, &service.tenant, &requested.endpoint)?;
        let (link_id, reason) = (connection.link_id, requested.reason.clone());
        operations::decide(
            &self.state,
            self.context,
            &service,
            link_id,
            decision,
            reason,
        )
    }
}
