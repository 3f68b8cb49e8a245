//! Asking again for a connection that was disconnected. The endpoint keeps its name and its addresses.

use crate::model::{
    Change, ConnectionState, Endpoint, Object, OpContext, Problem, ProblemCode, Reference, State,
    endpoint::{ReconnectRequest, ServiceIdentity},
    limits,
    operations::endpoint::{
        check_connections, check_resource, existing_endpoint, lookup_visible_service,
        requested_connection,
    },
    record::check_text,
    text,
};

/// Requests a new connection for an endpoint whose connection is Disconnected: to the service that has the requested
/// name now, which may be another one than before. The connection is a new one, with a link id of its own, and needs a
/// new approval.
///
/// # Errors
/// The endpoint does not exist or is at another version, its connection is not Disconnected, or the service does not
/// exist or is not visible to the tenant.
pub fn reconnect_endpoint(
    state: &State,
    context: &mut OpContext<'_>,
    reference: &Reference,
    request: ReconnectRequest,
) -> Result<Vec<Change>, Problem> {
    reconnect_endpoint_for(state, context, reference, request, false)
}

/// Requests a new connection. If `trusted`, the visibility of the service is not checked.
pub(super) fn reconnect_endpoint_for(
    state: &State,
    context: &mut OpContext<'_>,
    reference: &Reference,
    request: ReconnectRequest,
    trusted: bool,
) -> Result<Vec<Change>, Problem> {
    let old = existing_endpoint(state, reference)?;
    old.expect_version(request.version)?;
    let connection = &old.object.connection;
    if connection.state != ConnectionState::Disconnected {
        return Err(Problem::new(
            ProblemCode::WrongState,
            format!(
                "the connection of endpoint {reference} is {}: only one that is Disconnected can be replaced by a new one",
                connection.state
            ),
        ));
    }
    let message = request.request_message;
    let message = message.unwrap_or_else(|| old.object.request_message.clone());
    check_text("request_message", &message)?;
    let given = request.service;
    let given = given.unwrap_or_else(|| old.object.service.clone());
    text::check("service", &given, limits::MAX_SERVICE_NAME)?;
    let tenant = &reference.tenant;
    let (service, record) = lookup_visible_service(state, context, tenant, &given, trusted)?;
    let resource = request.resource;
    let resource = resource.unwrap_or_else(|| old.object.resource.clone());
    check_resource(record, &given, &resource)?;
    check_connections(state, tenant, service, record)?;
    let endpoint = Endpoint {
        connection: requested_connection(state, context, tenant, record, connection.slot),
        service_identity: ServiceIdentity {
            reference: service.clone(),
            uid: record.meta.uid,
        },
        service: given,
        resource,
        request_message: message,
        ..old.object.clone()
    };
    let record = old.update(context, old.meta.labels.clone(), endpoint);
    Ok(vec![Change::Put(Object::Endpoint(tenant.clone(), record))])
}
