//! Creating, changing and deleting services.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use crate::model::{
    Change, ConnectionState, Decision, HostAddresses, Kind, Name, Object, OpContext, Problem,
    ProblemCode, Record, Reference, Service, State,
    address::AddressRange,
    operations::{
        Policy, check_quota, check_same_name, connection::with_connection_state, existing_tenant,
        refuse_existing, required_name,
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

/// Returns a random alias that no service has.
fn generate_alias(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    name: &Name,
) -> String {
    loop {
        let random = context.identifiers.alias_part();
        let alias = format!("{name}.{random}.{}", policy.alias_domain);
        if state.service_by_alias(&alias).is_none() {
            return alias;
        }
    }
}

/// Returns true if the text has the form of the service's aliases: `NAME.RANDOM.DOMAIN`.
pub(crate) fn is_alias_for(name: &Name, alias: &str) -> bool {
    let is_random = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        part.len() == 16 && part.bytes().all(allowed)
    };
    let suffix = alias
        .strip_prefix(name.as_str())
        .and_then(|rest| rest.strip_prefix('.'));
    let (random, domain) = suffix
        .and_then(|rest| rest.split_once('.'))
        .unwrap_or_default();
    let is_domain = !domain.is_empty()
        && domain.len() <= 150
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    is_random(random) && is_domain
}

/// Returns the alias if it has the form of an alias and is free.
fn checked_alias(state: &State, name: &Name, alias: String) -> Result<String, Problem> {
    if !is_alias_for(name, &alias) {
        let shown: String = alias.chars().take(100).collect();
        return Err(Problem::invalid(
            "alias",
            format!("{shown:?} is not an alias of {name}: use NAME.RANDOM.DOMAIN"),
        ));
    }
    if state.service_by_alias(&alias).is_some() {
        return Err(
            Problem::new(ProblemCode::InUse, format!("the alias {alias} is in use")).at("alias"),
        );
    }
    Ok(alias)
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

/// Refuses addresses that are in use, or not usable, in the service's network.
///
/// Addresses of `old_spec` were checked before and are not checked against the host again. The host may have got one of
/// them since: such an address is not programmed, and a change of other fields must stay possible.
fn check_network_use(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    spec: &ServiceSpec,
    old_spec: Option<&ServiceSpec>,
) -> Result<(), Problem> {
    let network = Reference::new(reference.tenant.clone(), spec.network.clone());
    let Some(found) = state.networks.get(&network) else {
        return Err(Problem::invalid(
            "network",
            format!("there is no network {network}: create it first"),
        ));
    };
    spec.check()?;
    let occupancy = state.occupancy(&network);
    let old_spec = old_spec.filter(|before| before.network == spec.network);
    let old_ranges: HashSet<&AddressRange> = old_spec
        .into_iter()
        .flat_map(|before| &before.nat_addresses)
        .collect();
    for (index, range) in spec.nat_addresses.iter().enumerate() {
        let field = format!("nat_addresses[{index}]");
        let in_use = |what: String| {
            Problem::new(ProblemCode::InUse, format!("{range} holds {what}")).at(field.clone())
        };
        if !old_ranges.contains(range) {
            found.object.check_nat_range(&field, *range)?;
            let conflict = host.range_conflict(state, &network, &found.object, *range);
            if let Some(detail) = conflict {
                return Err(Problem::new(ProblemCode::InUse, detail).at(field));
            }
        }
        if let Some((address, endpoint)) = occupancy.endpoint_in(*range) {
            return Err(in_use(format!("{address}, which is endpoint {endpoint}")));
        }
        let mut ranges = occupancy.nat_ranges_in(*range);
        if let Some((other_range, other)) = ranges.find(|(_, other)| *other != reference) {
            return Err(in_use(format!(
                "source NAT addresses of service {other} ({other_range})"
            )));
        }
        let mut backends = occupancy.backends_in(*range);
        if let Some((address, other)) = backends.find(|(_, other)| *other != reference) {
            return Err(in_use(format!("{address}, a backend of service {other}")));
        }
    }
    check_backends(state, host, reference, &network, spec, old_spec)
}

/// Refuses a backend whose address is the host's, is reserved, or is a local address of the gateway in the network.
fn check_backends(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    network: &Reference,
    spec: &ServiceSpec,
    old_spec: Option<&ServiceSpec>,
) -> Result<(), Problem> {
    let Some(found) = state.networks.get(network) else {
        return Ok(());
    };
    let occupancy = state.occupancy(network);
    let reserved: Vec<(&str, IpAddr)> = found.object.reserved_addresses().collect();
    let old_addresses: HashSet<IpAddr> = old_spec
        .into_iter()
        .flat_map(|before| &before.resources)
        .flat_map(|resource| &resource.backends)
        .map(|backend| backend.address)
        .collect();
    for (r, resource) in spec.resources.iter().enumerate() {
        for (b, backend) in resource.backends.iter().enumerate() {
            let field = || format!("resources[{r}].backends[{b}].address");
            let in_use = |detail: String| Err(Problem::new(ProblemCode::InUse, detail).at(field()));
            let address = backend.address;
            // Health checks of a tenant's backend must not reach the host itself.
            let conflict = host.conflict(state, network, &found.object, address);
            if let Some(detail) = conflict.filter(|_| !old_addresses.contains(&address)) {
                return in_use(detail);
            }
            if let Some((what, _)) = reserved.iter().find(|(_, reserved)| *reserved == address) {
                return in_use(format!("{address} is {what}, not a server"));
            }
            if let Some(endpoint) = occupancy.endpoint_at(address) {
                return in_use(format!(
                    "{address} is endpoint {endpoint} in this network, not a server"
                ));
            }
            let nat_range = occupancy.nat_range_at(address);
            if let Some((_, other)) = nat_range.filter(|(_, other)| *other != reference) {
                return in_use(format!(
                    "{address} is a source NAT address of service {other}"
                ));
            }
        }
    }
    Ok(())
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
