//! Tenants: owners of networks, services and endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, record::Labels, schema, strict};

/// Quotas: the numbers of objects that a tenant may have. An unset quota is the configured default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Maximum number of networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<u32>,
    /// Maximum number of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Maximum number of endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
}

/// Stored tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Quotas of the tenant.
    #[serde(default)]
    pub quotas: Quotas,
}

/// Request to create or change a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// Name of the tenant. Unset in a request to change one, whose path has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Version of the tenant that the change applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
    /// Quotas of the tenant.
    #[serde(default, deserialize_with = "strict::object")]
    pub quotas: Quotas,
}
