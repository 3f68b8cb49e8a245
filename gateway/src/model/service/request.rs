//! Requests to create or change a service, and their schema.

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::model::{Name, record::Labels, schema, service::ServiceSpec};

/// Request to create or change a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// Name of the service. Unset in a request to change one, whose path has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Version of the service that the change applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Settings of the provider.
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

/// The fields of a [`ServiceRequest`] that every request has.
#[derive(ToSchema)]
#[expect(dead_code, reason = "exists for its schema")]
struct ServiceRequestCommonFields {
    /// Name of the service. Unset in a request to change one, whose path has the name.
    name: Option<Name>,
    /// Version of the service that the change applies to.
    version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[schema(value_type = Option<schema::Labels>)]
    labels: Option<Labels>,
}

// The derived schema would allow other fields.
impl PartialSchema for ServiceRequest {
    fn schema() -> RefOr<Schema> {
        let parts = [ServiceRequestCommonFields::schema(), ServiceSpec::schema()];
        schema::merged(parts, "Request to create or change a service.")
    }
}

impl ToSchema for ServiceRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ServiceRequestCommonFields::schemas(schemas);
        ServiceSpec::schemas(schemas);
    }
}
