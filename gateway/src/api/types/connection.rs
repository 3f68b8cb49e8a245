//! Connections, and decisions about them.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::model::{Connection, ConnectionState, Name, Reference, schema};

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
    /// Time of the request: that of the endpoint's creation, or of its last reconnection.
    #[schema(value_type = String, format = DateTime)]
    pub requested_at: Timestamp,
    /// State and last decision.
    #[serde(flatten)]
    pub connection: ConnectionStatus,
}

/// Content of a decision about a connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionRequest {
    /// Reason, which the consumer sees.
    #[schema(max_length = 1000)]
    pub reason: String,
    /// Version of the connection that the decision is about; unset: any version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// Filter of connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsRequest {
    /// The connection of this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Reference>,
    /// Connections in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ConnectionState>,
    /// Maximum number of connections; 100 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// `next` of the previous page; unset: the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 127)]
    pub after: Option<String>,
}
