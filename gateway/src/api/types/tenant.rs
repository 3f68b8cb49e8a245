//! Wire types of tenants.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::types::view,
    model::{Meta, Name, tenant::Quotas},
};

/// A tenant's fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TenantSpec {
    /// Quotas of the tenant.
    pub quotas: Quotas,
}

/// A tenant's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TenantStatus {
    /// Numbers of objects that count towards the quotas.
    pub usage: Usage,
}

/// Numbers of a tenant's objects.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Number of networks.
    pub networks: usize,
    /// Number of services.
    pub services: usize,
    /// Number of endpoints.
    pub endpoints: usize,
}

view! {
    /// A tenant.
    TenantView: TenantSpec, TenantStatus
}
