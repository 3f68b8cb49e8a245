//! Connections as the API shows them.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Connection, ConnectionState, Endpoint, Name, Principal, Record, Reference, access,
    connection::AUTO_APPROVAL, schema,
};

/// A connection as provider and consumer see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConnectionStatus {
    /// Number of the connection.
    pub link_id: u32,
    /// State of the connection.
    pub state: ConnectionState,
    /// Reason given with the last decision.
    pub reason: String,
    /// Principal that took the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Time of the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub decided_at: Option<Timestamp>,
}

impl ConnectionStatus {
    /// Hides which principal took the decision, unless the caller can see the service's tenant.
    #[must_use]
    pub fn redacted_for(mut self, caller: &Principal, service: &Reference) -> Self {
        if !caller.can_see(&service.tenant) {
            self.decided_by = self.decided_by.map(|name| {
                if name == AUTO_APPROVAL {
                    name
                } else if access::is_operator_name(&name) {
                    "operator".to_owned()
                } else {
                    "the provider".to_owned()
                }
            });
        }
        self
    }
}

impl From<&Connection> for ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        Self {
            link_id: connection.link_id,
            state: connection.state,
            reason: connection.reason.clone(),
            decided_by: connection.decided_by.clone(),
            decided_at: connection.decided_at,
        }
    }
}

/// A connection as the provider sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConnectionView {
    /// The service.
    pub service: Reference,
    /// Value of `version` for a decision about the connection.
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub version: u64,
    /// The endpoint, as `TENANT/NAME`.
    pub endpoint: Reference,
    /// The endpoint's addresses.
    #[schema(value_type = Vec<schema::IpAddress>)]
    pub addresses: Vec<IpAddr>,
    /// The resource that the endpoint is bound to.
    pub resource: Name,
    /// Message of the consumer to the provider.
    pub request_message: String,
    /// Time at which the endpoint was created.
    #[schema(value_type = String, format = DateTime)]
    pub requested_at: Timestamp,
    /// State and last decision.
    #[serde(flatten)]
    pub connection: ConnectionStatus,
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
        requested_at: record.meta.created_at,
        connection: ConnectionStatus::from(&record.object.connection),
    }
}
