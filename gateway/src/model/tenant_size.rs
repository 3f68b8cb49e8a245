//! Sizes of objects, and the limit of all objects of a tenant together.

use std::collections::BTreeMap;

use crate::model::{
    Change, Kind, Name, Problem, ProblemCode, State, limits, object_size::object_size,
};

/// Refuses changes after which the objects of a tenant exceed [`limits::MAX_TENANT_BYTES`]. Objects of a tenant that
/// exceeds the limit already, from before there was one, can still be changed as long as the tenant does not grow.
///
/// # Errors
/// [`ProblemCode::LimitReached`].
pub fn check_tenant_sizes(state: &State, changes: &[Change]) -> Result<(), Problem> {
    let mut sizes: BTreeMap<&Name, (usize, usize)> = BTreeMap::new();
    for change in changes {
        let object = change.object();
        // Only the operator creates tenants and networks.
        if matches!(object.kind(), Kind::Tenant | Kind::Network) {
            continue;
        }
        let old = state.object(object.kind(), &object.reference());
        let (grown, shrunk) = sizes.entry(object.tenant()).or_default();
        *shrunk += old.as_ref().map_or(0, object_size);
        if let Change::Put(object) = change {
            *grown += object_size(object);
        }
    }
    for (tenant, (grown, shrunk)) in sizes {
        let size = (state.tenant_size(tenant) + grown).saturating_sub(shrunk);
        if grown > shrunk && size > limits::MAX_TENANT_BYTES {
            let detail = format!(
                "labels, messages and services of tenant {tenant} would take {size} bytes of at most \
                 {}: delete or shorten some first",
                limits::MAX_TENANT_BYTES
            );
            return Err(Problem::new(ProblemCode::LimitReached, detail));
        }
    }
    Ok(())
}
