//! Creating, changing and deleting tenants.

use crate::model::{
    Change, Kind, Name, Object, OpContext, Problem, ProblemCode, Record, State, Tenant,
    operations::{check_same_name, existing_tenant, required_name},
    record::{Labels, checked_labels},
    tenant::TenantRequest,
};

/// Creates a tenant.
///
/// # Errors
/// The name is missing or in use, or the labels are invalid.
///
/// # Examples
/// ```
/// use gateway::model::{
///     HostAddresses, HostUses, OpContext, ProblemCode, RandomIdentifiers, State, event_id::EventId,
///     operations::create_tenant, tenant::TenantRequest,
/// };
/// use jiff::Timestamp;
///
/// let mut context = OpContext {
///     now: Timestamp::UNIX_EPOCH,
///     actor: "operator",
///     is_operator: false,
///     identifiers: &mut RandomIdentifiers,
///     host: &HostAddresses::default(),
///     host_uses: &HostUses::default(),
///     event_boundary: EventId::default(),
/// };
/// let request: TenantRequest = serde_json::from_str(r#"{ "name": "shop" }"#)?;
/// let mut state = State::default();
/// let changes = create_tenant(&state, &mut context, request)?;
///
/// // The store commits the changes, and the state follows.
/// state.apply(changes, 1);
/// assert!(state.tenants.contains_key("shop"));
///
/// let request: TenantRequest =
///     serde_json::from_str(r#"{ "name": "shop", "quotas": { "networks": 1 } }"#)?;
/// let problem = create_tenant(&state, &mut context, request).unwrap_err();
/// assert_eq!(problem.code, ProblemCode::AlreadyExists);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_tenant(
    state: &State,
    context: &mut OpContext<'_>,
    request: TenantRequest,
) -> Result<Vec<Change>, Problem> {
    let name = required_name(request.name)?;
    let labels = checked_labels(request.labels, &Labels::new())?;
    let tenant = Tenant {
        quotas: request.quotas,
    };
    if let Some(existing) = state.tenants.get(&name) {
        if existing.object == tenant && existing.meta.labels == labels {
            return Ok(Vec::new());
        }
        return Err(Problem::new(
            ProblemCode::AlreadyExists,
            format!("tenant {name} exists already"),
        )
        .at("name"));
    }
    let record = Record::create(context, name, labels, tenant);
    Ok(vec![Change::Put(Object::Tenant(record))])
}

/// Changes a tenant's quotas and labels.
///
/// # Errors
/// The tenant does not exist, or is at another version.
pub fn update_tenant(
    state: &State,
    context: &OpContext<'_>,
    name: &Name,
    request: TenantRequest,
) -> Result<Vec<Change>, Problem> {
    let old = existing_tenant(state, name)?;
    check_same_name(request.name.as_ref(), name)?;
    old.expect_version(request.version)?;
    let labels = checked_labels(request.labels, &old.meta.labels)?;
    let tenant = Tenant {
        quotas: request.quotas,
    };
    Ok(vec![Change::Put(Object::Tenant(
        old.update(context, labels, tenant),
    ))])
}

/// Deletes a tenant, with its credentials and webhooks.
///
/// # Errors
/// The tenant does not exist, or still owns networks, services or endpoints.
pub fn delete_tenant(state: &State, name: &Name) -> Result<Vec<Change>, Problem> {
    let record = existing_tenant(state, name)?;
    let owned = [
        (
            Kind::Network,
            State::owned_by(&state.networks, name).count(),
        ),
        (
            Kind::Service,
            State::owned_by(&state.services, name).count(),
        ),
        (
            Kind::Endpoint,
            State::owned_by(&state.endpoints, name).count(),
        ),
    ];
    let remaining: Vec<String> = owned
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {}", kind.plural()))
        .collect();
    if !remaining.is_empty() {
        return Err(Problem::new(
            ProblemCode::HasDependents,
            format!(
                "tenant {name} still has {}: delete them first",
                remaining.join(", ")
            ),
        ));
    }
    // Credentials and webhooks are of no use without the tenant.
    let mut changes = Vec::new();
    for (_, record) in State::owned_by(&state.tokens, name) {
        changes.push(Change::Delete(Object::Token(name.clone(), record.clone())));
    }
    for (_, record) in State::owned_by(&state.identities, name) {
        let object = Object::Identity(name.clone(), record.clone());
        changes.push(Change::Delete(object));
    }
    for (_, record) in State::owned_by(&state.webhooks, name) {
        let object = Object::Webhook(name.clone(), record.clone());
        changes.push(Change::Delete(object));
    }
    changes.push(Change::Delete(Object::Tenant(record.clone())));
    Ok(changes)
}
