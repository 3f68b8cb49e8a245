//! Endpoints: the consumer's side.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{Connection, Name, Reference, record::Labels, schema};

/// The service that an endpoint is connected to, as the gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIdentity {
    /// Where it is.
    pub reference: Reference,
    /// Which one it is: one of the same name that came later is another.
    pub uid: Uuid,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The consumer's network.
    pub network: Name,
    /// Its private addresses there.
    pub addresses: Vec<IpAddr>,
    /// The service, as its user named it: an alias, or `TENANT/NAME`.
    pub service: String,
    /// The resource that it is bound to.
    pub resource: Name,
    /// What the consumer told the provider.
    #[serde(default)]
    pub request_message: String,
    /// The service that was meant.
    pub service_identity: ServiceIdentity,
    /// The relation to the service.
    pub connection: Connection,
}

/// What a user says of a new endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointRequest {
    /// The endpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The version that the change was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
    /// The consumer's network.
    pub network: Name,
    /// Its private addresses there, one of a family; unset: free ones of the network's pool.
    #[serde(default)]
    #[schema(value_type = Vec<schema::IpAddress>, max_items = 2)]
    pub addresses: Vec<IpAddr>,
    /// The service: an alias, or `TENANT/NAME` if it is visible.
    #[schema(max_length = 256)]
    pub service: String,
    /// The resource to be bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
    /// A message for the provider.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub request_message: String,
}
