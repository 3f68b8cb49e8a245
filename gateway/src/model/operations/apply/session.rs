//! Application of a manifest's objects, one operation after the other, to a copy of the state.

use std::collections::BTreeMap;

use crate::model::{
    Change, Kind, Object, OpContext, Permission, Principal, Problem, Reference, State, Version,
    identity::IdentityRequest,
    manifest::{Manifest, ManifestEntry, NamedRequest},
    network::NetworkRequest,
    operations::{
        ApplyOptions, Policy,
        apply::diff::{ObjectDiff, diff_object, is_unchanged},
        create_identity, create_network, create_tenant, delete_identity,
        network::matches_request,
        service::create_service_as,
        update_network, update_service, update_tenant,
    },
    service::ServiceRequest,
    tenant::TenantRequest,
};

/// Revision that no stored object has.
const UNSTORED_REVISION: u64 = u64::MAX;

/// Operations of one manifest on a copy of the state.
pub(super) struct ApplySession<'a, 'c> {
    /// State with the changes so far.
    pub(super) state: State,
    pub(super) context: &'a mut OpContext<'c>,
    pub(super) policy: &'a Policy,
    pub(super) principal: &'a Principal,
    pub(super) options: ApplyOptions,
    /// Objects that were changed, as they were before the first change.
    touched: BTreeMap<(Kind, Reference), Option<Object>>,
}

impl<'a, 'c> ApplySession<'a, 'c> {
    pub(super) fn new(
        state: &State,
        context: &'a mut OpContext<'c>,
        policy: &'a Policy,
        principal: &'a Principal,
        options: ApplyOptions,
    ) -> Self {
        Self {
            state: state.clone(),
            context,
            policy,
            principal,
            options,
            touched: BTreeMap::new(),
        }
    }

    /// Applies the objects of the manifest, each kind after those that it depends on.
    pub(super) fn apply_manifest(&mut self, manifest: &Manifest) -> Result<(), Problem> {
        for request in &manifest.tenants {
            self.apply_tenant(request)?;
        }
        for entry in &manifest.identities {
            self.apply_identity(entry)?;
        }
        for entry in &manifest.networks {
            self.apply_network(entry)?;
        }
        for entry in &manifest.services {
            let reference = required_reference(Kind::Service, entry)?;
            let changes = self.apply_service(entry, &reference);
            self.record_result(Kind::Service, &reference.to_string(), changes)?;
        }
        self.apply_endpoints(manifest)
    }

    /// Returns the changes of all operations together, and the differences.
    pub(super) fn finish(self) -> (Vec<Change>, Vec<ObjectDiff>) {
        let mut changes = Vec::new();
        let mut differences = Vec::new();
        for ((kind, reference), before) in self.touched {
            let after = self.state.object(kind, &reference);
            if is_unchanged(before.as_ref(), after.as_ref()) {
                continue;
            }
            differences.push(diff_object(
                before.as_ref(),
                after.as_ref(),
                kind,
                &reference,
            ));
            match (before, after) {
                (before, Some(mut after)) => {
                    after.meta_mut().version =
                        before.map_or_else(Version::default, |before| before.version());
                    changes.push(Change::Put(after));
                }
                (Some(before), None) => changes.push(Change::Delete(before)),
                (None, None) => {}
            }
        }
        (changes, differences)
    }

    /// Applies changes to the copy of the state.
    pub(super) fn record(&mut self, changes: Vec<Change>) {
        for change in &changes {
            let object = change.object();
            let key = (object.kind(), object.reference());
            if !self.touched.contains_key(&key) {
                let before = self.state.object(key.0, &key.1);
                self.touched.insert(key, before);
            }
        }
        self.state.apply(changes, UNSTORED_REVISION);
    }

    /// Applies the changes of an operation on an object, or returns its problem with the object's kind and name.
    pub(super) fn record_result(
        &mut self,
        kind: Kind,
        shown: &str,
        result: Result<Vec<Change>, Problem>,
    ) -> Result<(), Problem> {
        self.record(Self::with_object(kind, shown, result)?);
        Ok(())
    }

    /// Prefixes a problem with the object's kind and name, because a manifest has many objects.
    pub(super) fn with_object<T>(
        kind: Kind,
        shown: &str,
        result: Result<T, Problem>,
    ) -> Result<T, Problem> {
        result.map_err(|problem| Problem {
            detail: format!("{kind} {shown}: {}", problem.detail),
            field: problem
                .field
                .map(|field| format!("{}[{shown}].{field}", kind.plural())),
            ..problem
        })
    }

    fn apply_tenant(&mut self, request: &TenantRequest) -> Result<(), Problem> {
        let name = request.name.clone();
        let name =
            name.ok_or_else(|| Problem::invalid("tenants", "a tenant needs a name: set name"))?;
        let changes = if self.state.tenants.contains_key(&name) {
            update_tenant(&self.state, self.context, &name, request.clone())
        } else {
            create_tenant(&self.state, self.context, request.clone())
        };
        self.record_result(Kind::Tenant, name.as_str(), changes)
    }

    fn apply_identity(&mut self, entry: &ManifestEntry<IdentityRequest>) -> Result<(), Problem> {
        let reference = required_reference(Kind::Identity, entry)?;
        let request = entry.request.clone();
        // An identity has no operation for changes, so a changed one is deleted and created again.
        if self.state.identities.contains_key(&reference) {
            let unchanged = create_identity(
                &self.state,
                self.context,
                self.policy,
                &entry.tenant,
                request.clone(),
            );
            if unchanged.is_ok_and(|changes| changes.is_empty()) {
                return Ok(());
            }
            let changes = delete_identity(&self.state, &reference)?;
            self.record(changes);
        }
        let changes = create_identity(
            &self.state,
            self.context,
            self.policy,
            &entry.tenant,
            request,
        );
        self.record_result(Kind::Identity, &reference.to_string(), changes)
    }

    fn apply_network(&mut self, entry: &ManifestEntry<NetworkRequest>) -> Result<(), Problem> {
        let reference = required_reference(Kind::Network, entry)?;
        let mut request = entry.request.clone();
        request.force |= self.options.force;
        // An unchanged network needs no permission. Any other is refused before it is checked, because the
        // problem could reveal interfaces of other tenants.
        let existing = self.state.networks.get(&reference);
        if !existing.is_some_and(|record| matches_request(record, &request)) {
            self.principal.require_operator()?;
        }
        let changes = if self.state.networks.contains_key(&reference) {
            update_network(&self.state, self.context, &reference, request)
        } else {
            create_network(
                &self.state,
                self.context,
                self.policy,
                &entry.tenant,
                request,
            )
        };
        self.record_result(Kind::Network, &reference.to_string(), changes)
    }

    fn apply_service(
        &mut self,
        entry: &ManifestEntry<ServiceRequest>,
        reference: &Reference,
    ) -> Result<Vec<Change>, Problem> {
        let request = entry.request.clone();
        let Some(existing) = self.state.services.get(reference) else {
            self.principal
                .require(&entry.tenant, Permission::Services)?;
            if entry.alias.is_some() {
                // A tenant that could choose an alias could take over that of a deleted service.
                self.principal.require_operator()?;
            }
            return create_service_as(
                &self.state,
                self.context,
                self.policy,
                &entry.tenant,
                request,
                entry.alias.clone(),
            );
        };
        let alias = &existing.object.alias;
        if entry
            .alias
            .as_ref()
            .is_some_and(|requested| requested != alias)
        {
            let detail = format!("the alias {alias} can't be changed: omit alias");
            return Err(Problem::invalid("alias", detail));
        }
        let labels = request.labels.as_ref();
        if existing.object.spec == request.spec
            && labels.is_none_or(|labels| *labels == existing.meta.labels)
        {
            existing.expect_version(request.version)?;
            return Ok(Vec::new());
        }
        // Before the addresses are checked against the whole network, which takes time.
        self.principal
            .require(&entry.tenant, Permission::Services)?;
        update_service(&self.state, self.context, reference, request)
    }
}

/// Returns the owner and name of an entry, which must have a name.
pub(super) fn required_reference<T: NamedRequest>(
    kind: Kind,
    entry: &ManifestEntry<T>,
) -> Result<Reference, Problem> {
    let detail = || format!("a {kind} of tenant {} has no name: set name", entry.tenant);
    entry
        .reference()
        .ok_or_else(|| Problem::invalid(kind.plural(), detail()))
}
