//! Who asks, as the caller sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Access, Name, Principal, Role};

/// Who asks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CallerView {
    /// Stable name that no other caller has.
    pub identity: String,
    /// As records and events show it.
    pub name: String,
    /// From where.
    pub from: String,
    /// Whether that is the operator.
    pub operator: bool,
    /// What it is in which tenant.
    pub roles: BTreeMap<Name, Role>,
}

/// Shows who asks.
#[must_use]
pub fn caller(principal: &Principal) -> CallerView {
    let roles = match &principal.access {
        Access::Operator => BTreeMap::new(),
        Access::Tenants(roles) => roles.clone(),
    };
    CallerView {
        identity: principal.identity.clone(),
        name: principal.name.clone(),
        from: principal.from.clone(),
        operator: principal.is_operator(),
        roles,
    }
}
