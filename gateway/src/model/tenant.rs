//! Tenants: owners of networks, services and endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, record::Labels, schema, strict};

/// How many objects a tenant may have; the configured default applies where a number is unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<u32>,
    /// Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
}

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its quotas.
    #[serde(default)]
    pub quotas: Quotas,
}

/// What a user says of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// The tenant's name; in the path when an existing one is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The version that the change was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels; unchanged where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
    /// Quotas.
    #[serde(default, deserialize_with = "strict::object")]
    pub quotas: Quotas,
}
