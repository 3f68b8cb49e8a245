//! Deletion of the objects that a manifest does not name.

use std::collections::HashSet;

use crate::model::{
    Kind, Name, Problem, Reference,
    manifest::Manifest,
    operations::{
        apply::{diff::display_name, session::ApplySession},
        delete_endpoint, delete_identity, delete_network, delete_service, delete_tenant,
    },
};

impl ApplySession<'_, '_> {
    /// Deletes the objects that the manifest does not name, of tenants that the caller sees. Dependent objects are
    /// deleted first.
    pub(super) fn prune(&mut self, manifest: &Manifest, force: bool) -> Result<(), Problem> {
        let principal = self.principal;
        // A principal can be given a role in another tenant without its consent. Nothing of a tenant is deleted
        // unless the manifest has an object of that tenant.
        let mut named_tenants: HashSet<Name> = HashSet::new();
        for kind in Manifest::KINDS {
            let references = manifest.references(kind).into_iter();
            named_tenants.extend(references.map(|reference| reference.tenant));
        }
        let current = Manifest::from_state(&self.state, |tenant| {
            principal.is_operator() || (principal.can_see(tenant) && named_tenants.contains(tenant))
        });
        // Checked while the service's endpoints still exist: the loss of approved connections needs `force`.
        let named: HashSet<Reference> = manifest.references(Kind::Service).into_iter().collect();
        for reference in current.references(Kind::Service) {
            if !named.contains(&reference) {
                let result = delete_service(&self.state, self.context, &reference, force);
                Self::with_object(Kind::Service, &reference.to_string(), result)?;
            }
        }
        for kind in Manifest::KINDS.into_iter().rev() {
            let is_operator_only = matches!(kind, Kind::Tenant | Kind::Network);
            if is_operator_only && !principal.is_operator() {
                continue;
            }
            let named: HashSet<Reference> = manifest.references(kind).into_iter().collect();
            for reference in current.references(kind) {
                if named.contains(&reference) {
                    continue;
                }
                let now = &self.state;
                let changes = match kind {
                    Kind::Tenant => delete_tenant(now, &reference.tenant),
                    Kind::Identity => delete_identity(now, &reference),
                    Kind::Network => delete_network(now, &reference),
                    Kind::Service => delete_service(now, self.context, &reference, force),
                    Kind::Endpoint => delete_endpoint(now, &reference),
                    Kind::Token | Kind::Webhook => continue,
                };
                self.record_result(kind, &display_name(kind, &reference), changes)?;
            }
        }
        Ok(())
    }
}
