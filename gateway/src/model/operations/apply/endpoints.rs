//! Endpoints of a manifest, and the states of their connections.

use std::collections::BTreeMap;

use crate::model::{
    Change, ConnectionState, Decision, Endpoint, Kind, Object, Permission, Problem, ProblemCode,
    Record, Reference,
    authorization::require_provider,
    endpoint::{EndpointRequest, ReconnectRequest},
    manifest::{ConnectionEntry, Manifest, ManifestEntry},
    operations::{
        self, ApplyOptions,
        apply::session::{ApplySession, required_reference},
        connection::with_connection_state,
        delete_endpoint,
        endpoint::create_endpoint_for,
        reconnect::reconnect_endpoint_for,
        update_endpoint,
    },
    record::{check_text, checked_labels},
    service::default_resource,
};

/// Treatment of an endpoint that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intention {
    /// Change the labels, or refuse the change.
    Update,
    /// Request a new connection; network and addresses stay.
    Reconnect,
    /// Delete the endpoint and create it again.
    Replace,
}

/// Returns how an existing endpoint becomes as requested.
fn intention(
    existing: &Record<Endpoint>,
    request: &EndpointRequest,
    options: ApplyOptions,
) -> Intention {
    let endpoint = &existing.object;
    let keeps_addresses = endpoint.network == request.network
        && (request.addresses.is_empty() || endpoint.addresses == request.addresses);
    let resource = request.resource.clone().unwrap_or_else(default_resource);
    let keeps_target = endpoint.service == request.service
        && endpoint.resource == resource
        && endpoint.request_message == request.request_message;
    match endpoint.connection.state {
        ConnectionState::Disconnected if keeps_addresses => Intention::Reconnect,
        _ if options.replace && !(keeps_addresses && keeps_target) => Intention::Replace,
        _ => Intention::Update,
    }
}

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
            let result = self.apply_endpoint(entry, &reference, &mut connections);
            self.record_result(Kind::Endpoint, &reference.to_string(), result)?;
        }
        for (reference, entry) in connections {
            let changes = self.decide(entry);
            self.record_result(Kind::Endpoint, &reference.to_string(), changes)?;
        }
        Ok(())
    }

    /// Returns the changes that make an endpoint as the entry says, and takes the entry of its connection if they
    /// include the connection's state.
    fn apply_endpoint(
        &mut self,
        entry: &ManifestEntry<EndpointRequest>,
        reference: &Reference,
        connections: &mut BTreeMap<&Reference, &ConnectionEntry>,
    ) -> Result<Vec<Change>, Problem> {
        let request = entry.request.clone();
        let trusted = self.principal.is_operator();
        let existing = self.state.endpoints.get(reference);
        let wanted = connections.get(reference).map(|entry| entry.state);
        let intention = existing.map(|record| intention(record, &request, self.options));
        let intention = match (intention, wanted) {
            // A manifest that wants the connection to be disconnected asks for no other.
            (Some(Intention::Reconnect), Some(ConnectionState::Disconnected)) => {
                Some(Intention::Update)
            }
            // The operator may decide for a provider, but not by a manifest that is older than the provider's decision.
            (Some(Intention::Reconnect), Some(ConnectionState::Approved))
                if trusted && !self.options.replace =>
            {
                return Err(Problem::new(
                    ProblemCode::WrongState,
                    format!(
                        "the provider has ended the connection of endpoint {reference}, which the manifest approves: \
                         take the connection out of the manifest to request it again, or apply with --replace to \
                         approve it again"
                    ),
                ));
            }
            (intention, _) => intention,
        };
        let requested = match intention {
            Some(Intention::Update) => {
                return update_endpoint(&self.state, self.context, reference, request);
            }
            Some(Intention::Reconnect) => {
                self.principal
                    .require(&entry.tenant, Permission::Endpoints)?;
                self.reconnect(reference, request, trusted)?
            }
            intention => {
                // Before a free address is searched, which takes time.
                self.principal
                    .require(&entry.tenant, Permission::Endpoints)?;
                if intention.is_some() {
                    let changes = delete_endpoint(&self.state, reference)?;
                    self.record(changes);
                }
                let (tenant, policy) = (&entry.tenant, self.policy);
                create_endpoint_for(&self.state, self.context, policy, tenant, request, trusted)?
            }
        };
        Ok(match connections.get(reference).copied() {
            Some(connection) if trusted => {
                connections.remove(reference);
                self.set_connection_state(requested, connection)
            }
            _ => requested,
        })
    }

    /// Returns the changes that request a new connection for an endpoint, and set its labels.
    fn reconnect(
        &mut self,
        reference: &Reference,
        request: EndpointRequest,
        trusted: bool,
    ) -> Result<Vec<Change>, Problem> {
        let reconnect = ReconnectRequest {
            version: request.version,
            service: Some(request.service),
            resource: Some(request.resource.unwrap_or_else(default_resource)),
            request_message: Some(request.request_message),
        };
        let mut changes =
            reconnect_endpoint_for(&self.state, self.context, reference, reconnect, trusted)?;
        for change in &mut changes {
            if let Change::Put(Object::Endpoint(_, record)) = change {
                let labels = checked_labels(request.labels.clone(), &record.meta.labels)?;
                record.meta.labels = labels;
            }
        }
        Ok(changes)
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
