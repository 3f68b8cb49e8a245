//! Wire types of flows.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::model::{Name, Reference, schema, service::Protocol};

/// A TCP or UDP flow.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// The endpoint; absent if it was deleted.
    pub endpoint: Option<Reference>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port of the client in the consumer's network.
    #[schema(value_type = schema::SocketAddress)]
    pub client: SocketAddr,
    /// Address and port of the endpoint.
    #[schema(value_type = schema::SocketAddress)]
    pub destination: SocketAddr,
    /// Source address and port in the provider's network (SNAT); visible to the provider only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub nat: Option<SocketAddr>,
    /// Address and port of the backend; visible to the provider only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SocketAddress>)]
    pub backend: Option<SocketAddr>,
    /// TCP state, where `closing` is before and `closed` after both ends of the connection are acknowledged; for UDP
    /// `open` or `unanswered`.
    pub state: String,
    /// True if a new flow may take its place: it is half-open or closed.
    pub evictable: bool,
    /// Seconds since the flow was opened.
    pub age: u64,
    /// Seconds since the last packet.
    pub idle: u64,
}

/// Filter of flows.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FlowsRequest {
    /// Flows of this endpoint. Only the operator may leave both this and `tenant` unset, for all flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Reference>,
    /// Flows of this tenant's endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// Flows of the client with this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::IpAddress>)]
    pub client: Option<IpAddr>,
    /// Flows to the backend with this address; only for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::IpAddress>)]
    pub backend: Option<IpAddr>,
    /// `next` of the previous page; unset: the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 20)]
    pub after: Option<String>,
    /// Maximum number of flows; 100 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}
