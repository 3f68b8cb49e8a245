//! The provider's decisions about connections to its services.

use crate::model::{
    Change, Connection, ConnectionState, Decision, Endpoint, Kind, Object, OpContext, Problem,
    ProblemCode, Record, Reference, State, limits, operations::existing_tenant, record::check_text,
    text,
};

/// Returns the endpoint whose connection to the service has the link id.
///
/// # Errors
/// The service or the connection does not exist.
pub fn find_connection<'a>(
    state: &'a State,
    service: &Reference,
    link_id: u32,
) -> Result<(&'a Reference, &'a Record<Endpoint>), Problem> {
    existing_tenant(state, &service.tenant)?;
    let record = state
        .services
        .get(service)
        .ok_or_else(|| Problem::not_found(Kind::Service, service))?;
    state
        .endpoint_by_link_id(link_id)
        .and_then(|endpoint| state.endpoints.get_key_value(endpoint))
        .filter(|(_, endpoint)| endpoint.object.service_identity.uid == record.meta.uid)
        .ok_or_else(|| {
            Problem::new(
                ProblemCode::NotFound,
                format!("service {service} has no connection {link_id}"),
            )
        })
}

/// Decides about a connection.
///
/// # Errors
/// The connection does not exist, or its state does not allow the decision.
pub fn decide(
    state: &State,
    context: &mut OpContext<'_>,
    service: &Reference,
    link_id: u32,
    decision: Decision,
    reason: String,
) -> Result<Vec<Change>, Problem> {
    let (endpoint, old) = find_connection(state, service, link_id)?;
    check_text("reason", &reason)?;
    let next = old.object.connection.state.apply_decision(decision)?;
    let generation = match next {
        // Never the previous generation, whose flows were revoked and must stay so.
        ConnectionState::Approved => {
            let old_generation = old.object.connection.generation;
            context
                .identifiers
                .number(&|number| number == old_generation)
        }
        _ => 0,
    };
    let record = with_connection_state(context, old, next, generation, reason);
    Ok(vec![Change::Put(Object::Endpoint(
        endpoint.tenant.clone(),
        record,
    ))])
}

/// Returns the endpoint with its connection in another state.
pub(super) fn with_connection_state(
    context: &OpContext<'_>,
    old: &Record<Endpoint>,
    state: ConnectionState,
    generation: u32,
    reason: String,
) -> Record<Endpoint> {
    let mut record = old.clone();
    record.object.connection = Connection {
        state,
        generation,
        reason,
        decided_by: Some(text::truncated(context.actor, limits::MAX_ACTOR)),
        decided_at: Some(context.now),
        ..record.object.connection
    };
    record
}
