//! Views of connections.

use crate::{
    api::types::{ConnectionStatus, ConnectionView},
    model::{
        Connection, Endpoint, Principal, Record, Reference, access, connection::AUTO_APPROVAL,
    },
};

/// Returns the status of a connection to a service as the caller may see it. Which principal took the decision is
/// hidden, unless the caller can see the service's tenant.
#[must_use]
pub fn connection_status(
    connection: &Connection,
    caller: &Principal,
    service: &Reference,
) -> ConnectionStatus {
    let mut status = ConnectionStatus::from(connection);
    if !caller.can_see(&service.tenant) {
        status.decided_by = status.decided_by.map(|name| {
            if name == AUTO_APPROVAL {
                name
            } else if access::is_operator_name(&name) {
                "operator".to_owned()
            } else {
                "the provider".to_owned()
            }
        });
    }
    status
}

/// Returns the view of a connection.
#[must_use]
pub fn connection(reference: &Reference, record: &Record<Endpoint>) -> ConnectionView {
    ConnectionView {
        service: record.object.service_identity.reference.clone(),
        version: record.meta.version.public_value(),
        endpoint: reference.clone(),
        addresses: record.object.addresses.clone(),
        resource: record.object.resource.clone(),
        request_message: record.object.request_message.clone(),
        requested_at: record
            .object
            .connection
            .requested_at
            .unwrap_or(record.meta.created_at),
        connection: ConnectionStatus::from(&record.object.connection),
    }
}
