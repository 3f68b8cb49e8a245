//! Checks of a manifest before it is applied: the caller sees every object that it names, and it names each once.

use std::collections::HashSet;

use crate::model::{
    Permission, Principal, Problem, State, authorization::require_visible_connection,
    manifest::Manifest, operations::apply::diff::display_name,
};

/// Refuses a manifest that names an object twice, or one that the caller may not see.
pub(super) fn check_manifest(
    state: &State,
    manifest: &Manifest,
    principal: &Principal,
) -> Result<(), Problem> {
    for kind in Manifest::KINDS {
        let mut seen = HashSet::new();
        for reference in manifest.references(kind) {
            principal.require(&reference.tenant, Permission::Read)?;
            let shown = display_name(kind, &reference);
            if !seen.insert(reference) {
                let detail = format!("{kind} {shown} is in the manifest twice");
                return Err(Problem::invalid(kind.plural(), detail));
            }
        }
    }
    let mut seen = HashSet::new();
    for entry in &manifest.connections {
        require_visible_connection(state, &entry.endpoint, principal)?;
        if !seen.insert(&entry.endpoint) {
            let detail = format!(
                "the connection of {} is in the manifest twice",
                entry.endpoint
            );
            return Err(Problem::invalid("connections", detail));
        }
    }
    Ok(())
}
