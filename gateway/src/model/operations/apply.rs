//! Applying a manifest to the state, as one change: all of it or nothing.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::model::{
    Change, ConnectionState, Decision, Kind, Name, Object, OpContext, Permission, Principal,
    Problem, ProblemCode, Reference, State, Version,
    authorization::{authorize, require_provider, require_visible_connection},
    limits,
    manifest::{ConnectionEntry, Manifest, ManifestEntry, NamedRequest},
    operations::{
        self, Policy, connection::with_connection_state, create_identity, create_network,
        create_tenant, delete_endpoint, delete_identity, delete_network, delete_service,
        delete_tenant, endpoint::create_endpoint_for, network::matches_request,
        service::create_service_as, update_endpoint, update_network, update_service, update_tenant,
    },
    record::check_text,
    service::ServiceRequest,
};

/// Options for applying a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Deletes objects that the manifest does not name.
    pub prune: bool,
    /// Deletes services even if connections to them are approved.
    pub force: bool,
}

/// Action on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiffAction {
    /// The object is created.
    Create,
    /// The object is changed.
    Update,
    /// The object is deleted.
    Delete,
}

/// Change of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldDiff {
    /// Path of the field: `resources[0].backends[1].weight`.
    pub field: String,
    /// Old value. Absent if the field had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub old: Option<String>,
    /// New value. Absent if the field has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub new: Option<String>,
}

/// Change of one object and of its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectDiff {
    /// Action on the object.
    pub action: DiffAction,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object: `TENANT`, or `TENANT/NAME`.
    pub object: String,
    /// Fields that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldDiff>,
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
    let mut session = ApplySession {
        state: state.clone(),
        touched: BTreeMap::new(),
        context,
        policy,
    };
    if options.prune {
        session.prune(manifest, principal, options.force)?;
    }
    session.apply_manifest(manifest, principal)?;
    let ApplySession {
        state: now,
        touched,
        ..
    } = session;
    let mut changes = Vec::new();
    let mut differences = Vec::new();
    for (before, reference, kind) in touched.into_values() {
        let after = now.object(kind, &reference);
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
    // Checked here as well as on commit: a dry run commits nothing, and its result must be that of a real run.
    authorize(state, &changes, principal)?;
    limits::check_tenants(state, &changes)?;
    Ok((changes, differences))
}

/// Refuses a manifest that names an object twice, or one that the caller may not see.
fn check_manifest(
    state: &State,
    manifest: &Manifest,
    principal: &Principal,
) -> Result<(), Problem> {
    for kind in APPLY_ORDER {
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

/// Kinds of objects that a manifest can have, those without secrets. Each kind depends on earlier ones only.
const APPLY_ORDER: [Kind; 5] = [
    Kind::Tenant,
    Kind::Identity,
    Kind::Network,
    Kind::Service,
    Kind::Endpoint,
];

fn display_name(kind: Kind, reference: &Reference) -> String {
    if kind == Kind::Tenant {
        reference.tenant.to_string()
    } else {
        reference.to_string()
    }
}

struct ApplySession<'a, 'c> {
    /// State with the changes so far.
    state: State,
    /// Objects that were changed, as they were before the first change.
    touched: BTreeMap<(Kind, Reference), (Option<Object>, Reference, Kind)>,
    context: &'a mut OpContext<'c>,
    policy: &'a Policy,
}

/// Revision that no stored object has.
const UNSTORED_REVISION: u64 = u64::MAX;

impl ApplySession<'_, '_> {
    fn record(&mut self, changes: Vec<Change>) {
        for change in &changes {
            let object = change.object();
            let (kind, reference) = (object.kind(), object.reference());
            let key = (kind, reference.clone());
            if !self.touched.contains_key(&key) {
                let before = self.state.object(kind, &reference);
                self.touched.insert(key, (before, reference, kind));
            }
        }
        self.state.apply(changes, UNSTORED_REVISION);
    }

    /// Prefixes a problem with the object's kind and name, because a manifest has many objects.
    fn with_object<T>(kind: Kind, shown: &str, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|problem| Problem {
            detail: format!("{kind} {shown}: {}", problem.detail),
            field: problem
                .field
                .map(|field| format!("{}[{shown}].{field}", kind.plural())),
            ..problem
        })
    }

    /// Deletes the objects that the manifest does not name, of tenants that the caller sees. Dependent objects are
    /// deleted first.
    fn prune(
        &mut self,
        manifest: &Manifest,
        principal: &Principal,
        force: bool,
    ) -> Result<(), Problem> {
        // A principal can be given a role in another tenant without its consent. Nothing of a tenant is deleted
        // unless the manifest has an object of that tenant.
        let mut named_tenants: HashSet<Name> = HashSet::new();
        for kind in APPLY_ORDER {
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
        for kind in APPLY_ORDER.into_iter().rev() {
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
                self.record(Self::with_object(
                    kind,
                    &display_name(kind, &reference),
                    changes,
                )?);
            }
        }
        Ok(())
    }

    fn apply_manifest(
        &mut self,
        manifest: &Manifest,
        principal: &Principal,
    ) -> Result<(), Problem> {
        for request in &manifest.tenants {
            let name = request.name.clone();
            let name = name.ok_or_else(|| Problem::invalid("tenants", "a tenant needs a name: set name"))?;
            let changes = if self.state.tenants.contains_key(&name) {
                update_tenant(&self.state, self.context, &name, request.clone())
            } else {
                create_tenant(&self.state, self.context, request.clone())
            };
            self.record(Self::with_object(Kind::Tenant, name.as_str(), changes)?);
        }
        for entry in &manifest.identities {
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
                    continue;
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
            self.record(Self::with_object(
                Kind::Identity,
                &reference.to_string(),
                changes,
            )?);
        }
        for entry in &manifest.networks {
            let reference = required_reference(Kind::Network, entry)?;
            let request = entry.request.clone();
            // An unchanged network needs no permission. Any other is refused before it is checked, because the
            // problem could reveal interfaces of other tenants.
            let existing = self.state.networks.get(&reference);
            if !existing.is_some_and(|record| matches_request(record, &request)) {
                principal.require_operator()?;
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
            self.record(Self::with_object(
                Kind::Network,
                &reference.to_string(),
                changes,
            )?);
        }
        for entry in &manifest.services {
            let reference = required_reference(Kind::Service, entry)?;
            let changes = self.apply_service(entry, &reference, principal);
            self.record(Self::with_object(
                Kind::Service,
                &reference.to_string(),
                changes,
            )?);
        }
        self.apply_endpoints(manifest, principal)
    }

    fn apply_service(
        &mut self,
        entry: &ManifestEntry<ServiceRequest>,
        reference: &Reference,
        principal: &Principal,
    ) -> Result<Vec<Change>, Problem> {
        let request = entry.request.clone();
        match self.state.services.get(reference) {
            Some(existing) => {
                let alias = &existing.object.alias;
                if entry.alias.as_ref().is_some_and(|requested| requested != alias) {
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
                principal.require(&entry.tenant, Permission::Services)?;
                update_service(&self.state, self.context, reference, request)
            }
            None => {
                principal.require(&entry.tenant, Permission::Services)?;
                if entry.alias.is_some() {
                    // A tenant that could choose an alias could take over that of a deleted service.
                    principal.require_operator()?;
                }
                create_service_as(
                    &self.state,
                    self.context,
                    self.policy,
                    &entry.tenant,
                    request,
                    entry.alias.clone(),
                )
            }
        }
    }

    fn apply_endpoints(
        &mut self,
        manifest: &Manifest,
        principal: &Principal,
    ) -> Result<(), Problem> {
        let mut connections: BTreeMap<&Reference, &ConnectionEntry> = manifest
            .connections
            .iter()
            .map(|entry| (&entry.endpoint, entry))
            .collect();
        for entry in &manifest.endpoints {
            let reference = required_reference(Kind::Endpoint, entry)?;
            let request = entry.request.clone();
            let changes = if self.state.endpoints.contains_key(&reference) {
                update_endpoint(&self.state, self.context, &reference, request)
            } else {
                // Before a free address is searched, which takes time.
                principal.require(&entry.tenant, Permission::Endpoints)?;
                let trusted = principal.is_operator();
                let (tenant, policy) = (&entry.tenant, self.policy);
                let created = create_endpoint_for(
                    &self.state,
                    self.context,
                    policy,
                    tenant,
                    request,
                    trusted,
                );
                match connections.get(&reference).copied() {
                    Some(connection) if trusted => {
                        connections.remove(&reference);
                        created.map(|changes| self.set_connection_state(changes, connection))
                    }
                    _ => created,
                }
            };
            self.record(Self::with_object(
                Kind::Endpoint,
                &reference.to_string(),
                changes,
            )?);
        }
        for (reference, entry) in connections {
            let changes = self.decide(entry, principal);
            self.record(Self::with_object(
                Kind::Endpoint,
                &reference.to_string(),
                changes,
            )?);
        }
        Ok(())
    }

    /// Returns the changes that create an endpoint, with its connection in the requested state.
    fn set_connection_state(&mut self, mut changes: Vec<Change>, requested: &ConnectionEntry) -> Vec<Change> {
        for change in &mut changes {
            if let Change::Put(Object::Endpoint(_, record)) = change {
                let connection = &record.object.connection;
                if (connection.state, &connection.reason) == (requested.state, &requested.reason) {
                    continue;
                }
                let generation = match requested.state {
                    ConnectionState::Approved => self.context.identifiers.number(&|_| false),
                    _ => 0,
                };
                let reason = requested.reason.clone();
                *record = with_connection_state(
                    self.context,
                    record,
                    requested.state,
                    generation,
                    reason,
                );
                if requested.state == ConnectionState::Pending {
                    record.object.connection.decided_by = None;
                    record.object.connection.decided_at = None;
                }
            }
        }
        changes
    }

    fn decide(
        &mut self,
        requested: &ConnectionEntry,
        principal: &Principal,
    ) -> Result<Vec<Change>, Problem> {
        check_text("reason", &requested.reason)?;
        let found = self.state.endpoints.get(&requested.endpoint);
        let record =
            found.ok_or_else(|| Problem::not_found(Kind::Endpoint, &requested.endpoint))?;
        let connection = &record.object.connection;
        let decision = match requested.state {
            state if state == connection.state => return Ok(Vec::new()),
            ConnectionState::Approved => Decision::Approve,
            ConnectionState::Rejected => Decision::Reject,
            ConnectionState::Disconnected => Decision::Remove,
            ConnectionState::Pending => {
                return Err(Problem::new(
                    ProblemCode::WrongState,
                    format!(
                        "a connection that is {} can't become Pending",
                        connection.state
                    ),
                ));
            }
        };
        let service = record.object.service_identity.reference.clone();
        // Checked first, because later problems name the service and thereby its provider.
        require_provider(principal, &service.tenant, &requested.endpoint)?;
        let (link_id, reason) = (connection.link_id, requested.reason.clone());
        operations::decide(
            &self.state,
            self.context,
            &service,
            link_id,
            decision,
            reason,
        )
    }
}

fn required_reference<T: NamedRequest>(kind: Kind, entry: &ManifestEntry<T>) -> Result<Reference, Problem> {
    let detail = || format!("a {kind} of tenant {} has no name: set name", entry.tenant);
    entry
        .reference()
        .ok_or_else(|| Problem::invalid(kind.plural(), detail()))
}

/// Returns true if the object is the same apart from its version and time of change.
fn is_unchanged(before: Option<&Object>, after: Option<&Object>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            let mut after = after.clone();
            let meta = after.meta_mut();
            meta.version = before.version();
            meta.updated_at = before.meta().updated_at;
            *before == after
        }
        _ => false,
    }
}

/// Fields that are left out of differences, because the gateway maintains them.
const HIDDEN_FIELDS: [&str; 12] = [
    "version",
    "updated_at",
    "created_at",
    "uid",
    "number",
    "resource_numbers",
    "service_identity",
    "name",
    "connection.generation",
    "connection.slot",
    "connection.link_id",
    "connection.decided_at",
];

fn diff_object(
    before: Option<&Object>,
    after: Option<&Object>,
    kind: Kind,
    reference: &Reference,
) -> ObjectDiff {
    let action = match (before, after) {
        (None, _) => DiffAction::Create,
        (_, None) => DiffAction::Delete,
        _ => DiffAction::Update,
    };
    let tree = |object: Option<&Object>| object.and_then(|object| object.to_value().ok());
    let mut fields = Vec::new();
    if action != DiffAction::Delete {
        let (old, new) = (tree(before), tree(after));
        diff_fields("", old.as_ref(), new.as_ref(), &mut fields);
    }
    ObjectDiff {
        action,
        kind,
        object: display_name(kind, reference),
        fields,
    }
}

fn diff_fields(path: &str, old: Option<&Value>, new: Option<&Value>, fields: &mut Vec<FieldDiff>) {
    if old == new || HIDDEN_FIELDS.contains(&path) {
        return;
    }
    let empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if empty(old) && empty(new) {
        return;
    }
    let is_tree = |value: Option<&Value>| matches!(value, Some(Value::Object(_) | Value::Array(_)));
    let descend = (is_tree(old) || empty(old)) && (is_tree(new) || empty(new));
    match (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null)) {
        (old @ (Value::Object(_) | Value::Null), new @ (Value::Object(_) | Value::Null))
            if descend =>
        {
            let none = serde_json::Map::new();
            let (old, new) = (
                old.as_object().unwrap_or(&none),
                new.as_object().unwrap_or(&none),
            );
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                diff_fields(&inner, old.get(name), new.get(name), fields);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let inner = format!("{path}[{index}]");
                diff_fields(&inner, old.get(index), new.get(index), fields);
            }
        }
        _ => {
            let text = |value: Option<&Value>| {
                value
                    .filter(|value| !value.is_null())
                    .map(|value| match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    })
            };
            fields.push(FieldDiff {
                field: path.to_owned(),
                old: text(old),
                new: text(new),
            });
        }
    }
}

/// Returns the manifest of all objects that the principal sees, without those that have secrets.
#[must_use]
pub fn export(state: &State, principal: &Principal) -> Manifest {
    Manifest::from_state(state, |tenant: &Name| principal.can_see(tenant))
}
