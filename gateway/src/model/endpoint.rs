//! Endpoints: the consumer's side of private links.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{Connection, Name, Reference, record::Labels, schema};

/// Identity of the service that an endpoint is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIdentity {
    /// Tenant and name of the service.
    pub reference: Reference,
    /// UID of the service. A service that is created later under the same name has another one.
    pub uid: Uuid,
}

/// Stored endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Network of the consumer.
    pub network: Name,
    /// Private addresses in the network, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Service as the request named it: an alias, or `TENANT/NAME`.
    pub service: String,
    /// Resource that the endpoint is bound to.
    pub resource: Name,
    /// Message of the consumer to the provider.
    #[serde(default)]
    pub request_message: String,
    /// Service that `service` named when the endpoint was created.
    pub service_identity: ServiceIdentity,
    /// Connection to the service.
    pub connection: Connection,
}

/// Request for a new connection of an endpoint whose connection is Disconnected.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReconnectRequest {
    /// Version of the endpoint that the request applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Service: its alias, or `TENANT/NAME`. Unset: the one that the endpoint names. A service that was created again
    /// has another alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub service: Option<String>,
    /// Resource to bind the endpoint to. Unset: the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
    /// Message to the provider. Unset: the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub request_message: Option<String>,
}

/// Request to create an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointRequest {
    /// Name of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Version of the endpoint that the change applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
    /// Network of the consumer.
    pub network: Name,
    /// Private addresses in the network, at most one of each family. Unset: free addresses of the network's pool.
    #[serde(default)]
    #[schema(value_type = Vec<schema::IpAddress>, max_items = 2)]
    pub addresses: Vec<IpAddr>,
    /// Service: its alias, or `TENANT/NAME` if the service is visible to the tenant.
    #[schema(max_length = 256)]
    pub service: String,
    /// Resource to bind the endpoint to. Unset: the resource `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
    /// Message to the provider.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub request_message: String,
}
