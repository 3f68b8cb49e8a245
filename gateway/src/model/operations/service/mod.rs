//! Creating, changing and deleting services.

mod addresses;
mod alias;

pub(crate) use alias::is_alias_for;

use std::collections::{BTreeMap, HashSet};

use crate::model::{
    Change, ConnectionState, Decision, Kind, Name, Object, OpContext, Problem, ProblemCode, Record,
    Reference, Service, State,
    operations::{
        Policy, check_quota, check_same_name,
        connection::with_connection_state,
        existing_tenant, refuse_existing, required_name,
        service::{
            addresses::check_network_use,
            alias::{checked_alias, generate_alias},
        },
    },
    record::{Labels, checked_labels},
    service::{ServiceRequest, ServiceSpec},
};

/// Creates a service with a new alias.
///
/// # Errors
/// The request is invalid, or an address is in use.
pub fn create_service(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: ServiceRequest,
) -> Result<Vec<Change>, Problem> {
    create_service_as(state, context, policy, tenant, request, None)
}

/// Creates a service, with the given alias if there is one. A restored service keeps its alias this way.
pub(super) fn create_service_as(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: ServiceRequest,
    alias: Option<String>,
) -> Result<Vec<Change>, Problem> {
    let owner = existing_tenant(state, tenant)?;
    let name = required_name(request.name.clone())?;
    let reference = Reference::new(tenant.clone(), name.clone());
    request.spec.check_size()?;
    request.spec.check()?;
    let labels = checked_labels(request.labels, &Labels::new())?;
    if let Some(existing) = state.services.get(&reference) {
        if existing.object.spec == request.spec && existing.meta.labels == labels {
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Service, &reference)?;
    }
    request.spec.check_probe_ports(None)?;
    check_network_use(state, context.host, &reference, &request.spec, None)?;
    let has = State::owned_by(&state.services, tenant).count();
    check_quota(owner, policy, Kind::Service, has)?;
    let number = context
        .identifiers
        .number(&|number| state.number_is_taken(number));
    let resource_numbers =
        number_resources(state, context, &request.spec, number, &BTreeMap::new());
    let service = Service {
        alias: match alias {
            Some(alias) => checked_alias(state, &name, alias)?,
            None => generate_alias(state, context, policy, &name),
        },
        spec: request.spec,
        number,
        resource_numbers,
    };
    let record = Record::create(context, name, labels, service);
    Ok(vec![Change::Put(Object::Service(tenant.clone(), record))])
}

/// Changes a service. A change of its visibility does not affect existing connections.
///
/// # Errors
/// As for [`create_service`]; or the service is at another version, or a resource would be removed that an endpoint is
/// bound to.
pub fn update_service(
    state: &State,
    context: &mut OpContext<'_>,
    reference: &Reference,
    request: ServiceRequest,
) -> Result<Vec<Change>, Problem> {
    let old = existing_service(state, reference)?;
    check_same_name(request.name.as_ref(), &reference.name)?;
    old.expect_version(request.version)?;
    request.spec.check_size()?;
    let old_spec = Some(&old.object.spec);
    check_network_use(state, context.host, reference, &request.spec, old_spec)?;
    request.spec.check_probe_ports(old_spec)?;
    let labels = checked_labels(request.labels, &old.meta.labels)?;
    let resources: HashSet<&Name> = request.spec.resources.iter().map(|r| &r.name).collect();
    for (endpoint, record) in state.endpoints_of_service(reference) {
        let bound = record.object.service_identity.uid == old.meta.uid
            && record.object.connection.state != ConnectionState::Disconnected;
        if bound && !resources.contains(&record.object.resource) {
            return Err(Problem::new(
                ProblemCode::HasDependents,
                format!(
                    "endpoint {endpoint} is bound to resource {}: remove its connection first",
                    record.object.resource
                ),
            )
            .at("resources"));
        }
    }
    let resource_numbers = number_resources(
        state,
        context,
        &request.spec,
        old.object.number,
        &old.object.resource_numbers,
    );
    let service = Service {
        spec: request.spec,
        alias: old.object.alias.clone(),
        number: old.object.number,
        resource_numbers,
    };
    let record = old.update(context, labels, service);
    Ok(vec![Change::Put(Object::Service(
        reference.tenant.clone(),
        record,
    ))])
}

/// Deletes a service. Its connections become Disconnected.
///
/// # Errors
/// The service does not exist, or connections are approved and `force` is false.
pub fn delete_service(
    state: &State,
    context: &OpContext<'_>,
    reference: &Reference,
    force: bool,
) -> Result<Vec<Change>, Problem> {
    let record = existing_service(state, reference)?;
    let connections: Vec<_> = state
        .endpoints_of_service(reference)
        .filter(|(_, endpoint)| endpoint.object.service_identity.uid == record.meta.uid)
        .collect();
    let approved = connections
        .iter()
        .filter(|(_, endpoint)| endpoint.object.connection.state == ConnectionState::Approved)
        .count();
    if approved > 0 && !force {
        return Err(Problem::new(
            ProblemCode::HasDependents,
            format!(
                "service {reference} has {approved} approved connections: remove them first, or \
                 delete it with force to disconnect them"
            ),
        ));
    }
    let mut changes = vec![Change::Delete(Object::Service(
        reference.tenant.clone(),
        record.clone(),
    ))];
    for (endpoint, old) in connections {
        if let Ok(state) = old.object.connection.state.apply_decision(Decision::Remove) {
            let reason = "the service was deleted";
            let new = with_connection_state(context, old, state, 0, reason.to_owned());
            changes.push(Change::Put(Object::Endpoint(endpoint.tenant.clone(), new)));
        }
    }
    Ok(changes)
}

fn existing_service<'a>(
    state: &'a State,
    reference: &Reference,
) -> Result<&'a Record<Service>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let found = state.services.get(reference);
    found.ok_or_else(|| Problem::not_found(Kind::Service, reference))
}

/// Returns a number for each resource: its present one, or a new one.
fn number_resources(
    state: &State,
    context: &mut OpContext<'_>,
    spec: &ServiceSpec,
    service: u32,
    old: &BTreeMap<Name, u32>,
) -> BTreeMap<Name, u32> {
    let mut numbers: BTreeMap<Name, u32> = BTreeMap::new();
    for resource in &spec.resources {
        let number = old.get(&resource.name).copied().unwrap_or_else(|| {
            context.identifiers.number(&|number| {
                number == service
                    || state.number_is_taken(number)
                    || numbers.values().any(|taken| *taken == number)
            })
        });
        numbers.insert(resource.name.clone(), number);
    }
    numbers
}
