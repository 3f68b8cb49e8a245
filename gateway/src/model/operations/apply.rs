//! Bringing many objects to what a manifest says, as one change: all of it, or nothing.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::model::{
    Change, Code, ConnectionState, Context, Decision, Kind, Name, Object, Permission, Principal,
    Problem, Reference, State, Version,
    authorization::{authorize, require_provider, require_visible_connection},
    limits,
    manifest::{ConnectionEntry, Manifest, Named, Owned},
    operations::{
        self, Policy, connection::with_state, create_identity, create_network, create_tenant,
        delete_endpoint, delete_identity, delete_network, delete_service, delete_tenant,
        endpoint::create_endpoint_for, network::is_asked_for, service::create_service_as,
        update_endpoint, update_network, update_service, update_tenant,
    },
    record::check_text,
    service::ServiceRequest,
};

/// How a manifest is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What it does not name is deleted.
    pub prune: bool,
    /// Services are deleted even though connections to them are approved.
    pub force: bool,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is created.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldDifference {
    /// Which: `resources[0].backends[1].weight`.
    pub field: String,
    /// What it was; none if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub old: Option<String>,
    /// What it becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub new: Option<String>,
}

/// What becomes of an object, and of its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// What becomes of it.
    pub fate: Fate,
    /// What it is.
    pub kind: Kind,
    /// Which.
    pub object: String,
    /// The fields that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldDifference>,
}

/// The changes that bring the state to what the manifest says, and how it differs.
///
/// # Errors
/// What the first operation is refused for that is needed; nothing is changed then.
pub fn apply(
    state: &State,
    context: &mut Context<'_>,
    policy: &Policy,
    principal: &Principal,
    manifest: &Manifest,
    options: Options,
) -> Result<(Vec<Change>, Vec<Difference>), Problem> {
    check_manifest(state, manifest, principal)?;
    let mut work = Work {
        now: state.clone(),
        touched: BTreeMap::new(),
        context,
        policy,
    };
    if options.prune {
        work.prune(manifest, principal, options.force)?;
    }
    work.bring_to(manifest, principal)?;
    let Work { now, touched, .. } = work;
    let mut changes = Vec::new();
    let mut differences = Vec::new();
    for (before, reference, kind) in touched.into_values() {
        let after = now.object(kind, &reference);
        if same(before.as_ref(), after.as_ref()) {
            continue;
        }
        differences.push(difference(
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
    // Here as well as where changes are committed: a dry run commits none, and its answer must be that of
    // the real one.
    authorize(state, &changes, principal)?;
    limits::check_tenants(state, &changes)?;
    Ok((changes, differences))
}

/// Each object is named once, and belongs to somebody whom the caller sees.
fn check_manifest(
    state: &State,
    manifest: &Manifest,
    principal: &Principal,
) -> Result<(), Problem> {
    for kind in KINDS {
        let mut seen = HashSet::new();
        for reference in manifest.references(kind) {
            principal.require(&reference.tenant, Permission::Read)?;
            let shown = shown(kind, &reference);
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

/// What has no secrets, in an order in which each only depends on those before.
const KINDS: [Kind; 5] = [
    Kind::Tenant,
    Kind::Identity,
    Kind::Network,
    Kind::Service,
    Kind::Endpoint,
];

fn shown(kind: Kind, reference: &Reference) -> String {
    if kind == Kind::Tenant {
        reference.tenant.to_string()
    } else {
        reference.to_string()
    }
}

struct Work<'a, 'c> {
    /// The state with what was done so far.
    now: State,
    /// What was touched, as it was before, by key.
    touched: BTreeMap<(Kind, Reference), (Option<Object>, Reference, Kind)>,
    context: &'a mut Context<'c>,
    policy: &'a Policy,
}

/// A revision that no object of a store has.
const NOT_STORED: u64 = u64::MAX;

impl Work<'_, '_> {
    fn take(&mut self, changes: Vec<Change>) {
        for change in &changes {
            let object = change.object();
            let (kind, reference) = (object.kind(), object.reference());
            let key = (kind, reference.clone());
            if !self.touched.contains_key(&key) {
                let before = self.now.object(kind, &reference);
                self.touched.insert(key, (before, reference, kind));
            }
        }
        self.now.apply(changes, NOT_STORED);
    }

    /// Names the object in a refusal, for the reader has many before him.
    fn at<T>(kind: Kind, shown: &str, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|problem| Problem {
            detail: format!("{kind} {shown}: {}", problem.detail),
            field: problem
                .field
                .map(|field| format!("{}[{shown}].{field}", kind.plural())),
            ..problem
        })
    }

    /// Deletes what the manifest does not name, of tenants that the caller sees: first what depends on
    /// others.
    fn prune(
        &mut self,
        manifest: &Manifest,
        principal: &Principal,
        force: bool,
    ) -> Result<(), Problem> {
        // Anybody can be given a role in a tenant of somebody else's. Of such a tenant nothing is deleted unless
        // the manifest speaks of it.
        let mut spoken_of: HashSet<Name> = HashSet::new();
        for kind in KINDS {
            let references = manifest.references(kind).into_iter();
            spoken_of.extend(references.map(|reference| reference.tenant));
        }
        let everything = Manifest::of(&self.now, |tenant| {
            principal.is_operator() || (principal.sees(tenant) && spoken_of.contains(tenant))
        });
        // Before its endpoints are gone: who loses what was approved must be meant.
        let named: HashSet<Reference> = manifest.references(Kind::Service).into_iter().collect();
        for reference in everything.references(Kind::Service) {
            if !named.contains(&reference) {
                let refusal = delete_service(&self.now, self.context, &reference, force);
                Self::at(Kind::Service, &reference.to_string(), refusal)?;
            }
        }
        for kind in KINDS.into_iter().rev() {
            let operators = matches!(kind, Kind::Tenant | Kind::Network);
            if operators && !principal.is_operator() {
                continue;
            }
            let named: HashSet<Reference> = manifest.references(kind).into_iter().collect();
            for reference in everything.references(kind) {
                if named.contains(&reference) {
                    continue;
                }
                let now = &self.now;
                let changes = match kind {
                    Kind::Tenant => delete_tenant(now, &reference.tenant),
                    Kind::Identity => delete_identity(now, &reference),
                    Kind::Network => delete_network(now, &reference),
                    Kind::Service => delete_service(now, self.context, &reference, force),
                    Kind::Endpoint => delete_endpoint(now, &reference),
                    Kind::Token | Kind::Webhook => continue,
                };
                self.take(Self::at(kind, &shown(kind, &reference), changes)?);
            }
        }
        Ok(())
    }

    fn bring_to(&mut self, manifest: &Manifest, principal: &Principal) -> Result<(), Problem> {
        for request in &manifest.tenants {
            let name = request.name.clone();
            let name = name.ok_or_else(|| Problem::invalid("tenants", "a tenant needs a name"))?;
            let changes = if self.now.tenants.contains_key(&name) {
                update_tenant(&self.now, self.context, &name, request.clone())
            } else {
                create_tenant(&self.now, self.context, request.clone())
            };
            self.take(Self::at(Kind::Tenant, name.as_str(), changes)?);
        }
        for entry in &manifest.identities {
            let reference = reference_of(Kind::Identity, entry)?;
            let request = entry.request.clone();
            // An identity is nothing but its fields, so another one takes its place.
            if self.now.identities.contains_key(&reference) {
                let there = create_identity(
                    &self.now,
                    self.context,
                    self.policy,
                    &entry.tenant,
                    request.clone(),
                );
                if there.is_ok_and(|changes| changes.is_empty()) {
                    continue;
                }
                let changes = delete_identity(&self.now, &reference)?;
                self.take(changes);
            }
            let changes =
                create_identity(&self.now, self.context, self.policy, &entry.tenant, request);
            self.take(Self::at(Kind::Identity, &reference.to_string(), changes)?);
        }
        for entry in &manifest.networks {
            let reference = reference_of(Kind::Network, entry)?;
            let request = entry.request.clone();
            // What is there just so needs no permission; all else is not even looked into, for the refusal
            // would tell of others' interfaces.
            let there = self.now.networks.get(&reference);
            if !there.is_some_and(|record| is_asked_for(record, &request)) {
                principal.require_operator()?;
            }
            let changes = if self.now.networks.contains_key(&reference) {
                update_network(&self.now, self.context, &reference, request)
            } else {
                create_network(&self.now, self.context, self.policy, &entry.tenant, request)
            };
            self.take(Self::at(Kind::Network, &reference.to_string(), changes)?);
        }
        for entry in &manifest.services {
            let reference = reference_of(Kind::Service, entry)?;
            let changes = self.service(entry, &reference, principal);
            self.take(Self::at(Kind::Service, &reference.to_string(), changes)?);
        }
        self.endpoints(manifest, principal)
    }

    fn service(
        &mut self,
        entry: &Owned<ServiceRequest>,
        reference: &Reference,
        principal: &Principal,
    ) -> Result<Vec<Change>, Problem> {
        let request = entry.request.clone();
        match self.now.services.get(reference) {
            Some(there) => {
                let alias = &there.object.alias;
                if entry.alias.as_ref().is_some_and(|wanted| wanted != alias) {
                    let detail = format!("its alias is {alias}, and can't be changed");
                    return Err(Problem::invalid("alias", detail));
                }
                let labels = request.labels.as_ref();
                if there.object.spec == request.spec
                    && labels.is_none_or(|labels| *labels == there.meta.labels)
                {
                    there.expect_version(request.version)?;
                    return Ok(Vec::new());
                }
                // Before the service is compared with all others in its network, which takes time.
                principal.require(&entry.tenant, Permission::Services)?;
                update_service(&self.now, self.context, reference, request)
            }
            None => {
                principal.require(&entry.tenant, Permission::Services)?;
                if entry.alias.is_some() {
                    // Whoever could choose an alias could take that of a service that was deleted.
                    principal.require_operator()?;
                }
                create_service_as(
                    &self.now,
                    self.context,
                    self.policy,
                    &entry.tenant,
                    request,
                    entry.alias.clone(),
                )
            }
        }
    }

    fn endpoints(&mut self, manifest: &Manifest, principal: &Principal) -> Result<(), Problem> {
        let mut connections: BTreeMap<&Reference, &ConnectionEntry> = manifest
            .connections
            .iter()
            .map(|entry| (&entry.endpoint, entry))
            .collect();
        for entry in &manifest.endpoints {
            let reference = reference_of(Kind::Endpoint, entry)?;
            let request = entry.request.clone();
            let changes = if self.now.endpoints.contains_key(&reference) {
                update_endpoint(&self.now, self.context, &reference, request)
            } else {
                // Before a free address is looked for, which takes time.
                principal.require(&entry.tenant, Permission::Endpoints)?;
                let trusted = principal.is_operator();
                let (tenant, policy) = (&entry.tenant, self.policy);
                let created =
                    create_endpoint_for(&self.now, self.context, policy, tenant, request, trusted);
                match connections.get(&reference).copied() {
                    Some(connection) if trusted => {
                        connections.remove(&reference);
                        created.map(|changes| self.standing(changes, connection))
                    }
                    _ => created,
                }
            };
            self.take(Self::at(Kind::Endpoint, &reference.to_string(), changes)?);
        }
        for (reference, entry) in connections {
            let changes = self.decide(entry, principal);
            self.take(Self::at(Kind::Endpoint, &reference.to_string(), changes)?);
        }
        Ok(())
    }

    /// The endpoint that is created, with its connection as it is to stand.
    fn standing(&mut self, mut changes: Vec<Change>, wanted: &ConnectionEntry) -> Vec<Change> {
        for change in &mut changes {
            if let Change::Put(Object::Endpoint(_, record)) = change {
                let connection = &record.object.connection;
                if (connection.state, &connection.reason) == (wanted.state, &wanted.reason) {
                    continue;
                }
                let generation = match wanted.state {
                    ConnectionState::Approved => self.context.identifiers.number(&|_| false),
                    _ => 0,
                };
                let reason = wanted.reason.clone();
                *record = with_state(self.context, record, wanted.state, generation, reason);
                if wanted.state == ConnectionState::Pending {
                    record.object.connection.decided_by = None;
                    record.object.connection.decided_at = None;
                }
            }
        }
        changes
    }

    fn decide(
        &mut self,
        wanted: &ConnectionEntry,
        principal: &Principal,
    ) -> Result<Vec<Change>, Problem> {
        check_text("reason", &wanted.reason)?;
        let found = self.now.endpoints.get(&wanted.endpoint);
        let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, &wanted.endpoint))?;
        let connection = &record.object.connection;
        let decision = match wanted.state {
            state if state == connection.state => return Ok(Vec::new()),
            ConnectionState::Approved => Decision::Approve,
            ConnectionState::Rejected => Decision::Reject,
            ConnectionState::Disconnected => Decision::Remove,
            ConnectionState::Pending => {
                return Err(Problem::new(
                    Code::WrongState,
                    format!(
                        "a connection that is {} can't be Pending again",
                        connection.state
                    ),
                ));
            }
        };
        let service = record.object.service_identity.reference.clone();
        // Other refusals name the service, and with it its provider.
        require_provider(principal, &service.tenant, &wanted.endpoint)?;
        let (link_id, reason) = (connection.link_id, wanted.reason.clone());
        operations::decide(&self.now, self.context, &service, link_id, decision, reason)
    }
}

fn reference_of<T: Named>(kind: Kind, entry: &Owned<T>) -> Result<Reference, Problem> {
    let detail = || format!("a {kind} of {} has no name", entry.tenant);
    entry
        .reference()
        .ok_or_else(|| Problem::invalid(kind.plural(), detail()))
}

/// Whether nothing changes but when it was written.
fn same(before: Option<&Object>, after: Option<&Object>) -> bool {
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

/// What is told of an object's fields: not what the gateway keeps for itself.
const UNTOLD: [&str; 12] = [
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

fn difference(
    before: Option<&Object>,
    after: Option<&Object>,
    kind: Kind,
    reference: &Reference,
) -> Difference {
    let fate = match (before, after) {
        (None, _) => Fate::Create,
        (_, None) => Fate::Delete,
        _ => Fate::Update,
    };
    let tree = |object: Option<&Object>| object.and_then(|object| object.to_value().ok());
    let mut fields = Vec::new();
    if fate != Fate::Delete {
        let (old, new) = (tree(before), tree(after));
        compare("", old.as_ref(), new.as_ref(), &mut fields);
    }
    Difference {
        fate,
        kind,
        object: shown(kind, reference),
        fields,
    }
}

fn compare(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    fields: &mut Vec<FieldDifference>,
) {
    if old == new || UNTOLD.contains(&path) {
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
                compare(&inner, old.get(name), new.get(name), fields);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for place in 0..old.len().max(new.len()) {
                let inner = format!("{path}[{place}]");
                compare(&inner, old.get(place), new.get(place), fields);
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
            fields.push(FieldDifference {
                field: path.to_owned(),
                old: text(old),
                new: text(new),
            });
        }
    }
}

/// The owner of an object, for whom it is seen.
#[must_use]
pub fn export(state: &State, principal: &Principal) -> Manifest {
    Manifest::of(state, |tenant: &Name| principal.sees(tenant))
}
