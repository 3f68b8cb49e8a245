//! The authenticated caller as the API shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Access, Name, Principal, Role};

/// The authenticated caller.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CallerView {
    /// Stable and unique identity.
    pub identity: String,
    /// Name in events and in the history of objects.
    pub name: String,
    /// IP address of the caller, or `socket`.
    pub from: String,
    /// True for the operator.
    pub operator: bool,
    /// Role in each tenant.
    pub roles: BTreeMap<Name, Role>,
}

/// Returns the view of a caller.
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
