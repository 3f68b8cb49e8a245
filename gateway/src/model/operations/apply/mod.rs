//! Applying a manifest to the state, as one change: all of it or nothing.

mod diff;
mod endpoints;
mod permissions;
mod prune;
mod session;

pub use diff::{DiffAction, FieldDiff, ObjectDiff};

use crate::model::{
    Change, Name, OpContext, Principal, Problem, State,
    authorization::authorize,
    manifest::Manifest,
    operations::{
        Policy,
        apply::{permissions::check_manifest, session::ApplySession},
    },
    tenant_size,
};

/// Options for applying a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Deletes objects that the manifest does not name.
    pub prune: bool,
    /// Deletes services even if connections to them are approved, and attaches interfaces that the host uses itself.
    pub force: bool,
    /// Replaces endpoints of which another field than the labels changes. Their connections are requested again.
    pub replace: bool,
}

/// Returns the changes that make the state equal to the manifest, and the differences.
///
/// # Errors
/// The problem of the first operation that is refused. Nothing is changed then.
pub fn apply(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    principal: &Principal,
    manifest: &Manifest,
    options: ApplyOptions,
) -> Result<(Vec<Change>, Vec<ObjectDiff>), Problem> {
    check_manifest(state, manifest, principal)?;
    let mut session = ApplySession::new(state, context, policy, principal, options);
    if options.prune {
        session.prune(manifest, options.force)?;
    }
    session.apply_manifest(manifest)?;
    let (changes, differences) = session.finish();
    // Checked here as well as on commit: a dry run commits nothing, and its result must be that of a real run.
    authorize(state, &changes, principal)?;
    tenant_size::check_tenant_sizes(state, &changes)?;
    Ok((changes, differences))
}

/// Returns the manifest of all objects that the principal sees, without those that have secrets.
#[must_use]
pub fn export(state: &State, principal: &Principal) -> Manifest {
    Manifest::from_state(state, |tenant: &Name| principal.can_see(tenant))
}
