//! Views of tenants.

use crate::{
    api::types::{TenantSpec, TenantStatus, TenantView, Usage},
    model::{Record, State, Tenant},
};

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
