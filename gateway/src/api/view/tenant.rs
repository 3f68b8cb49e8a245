//! Tenants as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::view::view,
    model::{Meta, Name, Record, State, Tenant, tenant::Quotas},
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
    /// Networks.
    pub networks: usize,
    /// Services.
    pub services: usize,
    /// Endpoints.
    pub endpoints: usize,
}

view! {
    /// A tenant.
    TenantView: TenantSpec, TenantStatus
}

/// Returns the view of a tenant.
#[must_use]
pub fn tenant(state: &State, record: &Record<Tenant>) -> TenantView {
    let name = &record.meta.name;
    TenantView {
        meta: record.meta.clone(),
        tenant: None,
        spec: TenantSpec {
            quotas: record.object.quotas,
        },
        status: TenantStatus {
            usage: Usage {
                networks: State::owned_by(&state.networks, name).count(),
                services: State::owned_by(&state.services, name).count(),
                endpoints: State::owned_by(&state.endpoints, name).count(),
            },
        },
    }
}
