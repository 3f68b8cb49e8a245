//! View of the authenticated caller.

use std::collections::BTreeMap;

use crate::{
    api::types::CallerView,
    model::{Access, Principal},
};

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
