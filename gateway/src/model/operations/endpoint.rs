//! Creating, changing and deleting endpoints.

use std::net::IpAddr;

use crate::model::{
    Change, Connection, ConnectionState, Endpoint, HostAddresses, Kind, Name, Network, Object,
    OpContext, Problem, ProblemCode, Record, Reference, Service, State,
    address::{AddressRange, check_host},
    connection::AUTO_APPROVAL,
    endpoint::{EndpointRequest, ServiceIdentity},
    limits,
    operations::{
        Policy, allocation::allocate, check_quota, check_same_name, existing_tenant,
        refuse_existing, required_name,
    },
    record::{Labels, check_text, checked_labels},
    service::default_resource,
    text,
};

/// Creates an endpoint, and with it the request for a connection.
///
/// # Errors
/// The request is invalid, or the service does not exist or is not visible to the tenant.
pub fn create_endpoint(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: EndpointRequest,
) -> Result<Vec<Change>, Problem> {
    create_endpoint_for(state, context, policy, tenant, request, false)
}

/// Creates an endpoint. If `trusted`, the visibility of the service is not checked, so that an endpoint that was
/// created while the service was visible can be restored.
pub(super) fn create_endpoint_for(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: EndpointRequest,
    trusted: bool,
) -> Result<Vec<Change>, Problem> {
    let owner = existing_tenant(state, tenant)?;
    let name = required_name(request.name.clone())?;
    let reference = Reference::new(tenant.clone(), name.clone());
    check_text("request_message", &request.request_message)?;
    text::check("service", &request.service, limits::MAX_SERVICE_NAME)?;
    if request.addresses.len() > limits::MAX_ENDPOINT_ADDRESSES {
        let detail = format!(
            "an endpoint has at most {} addresses, one of each family",
            limits::MAX_ENDPOINT_ADDRESSES
        );
        return Err(Problem::invalid("addresses", detail));
    }
    let labels = checked_labels(request.labels.clone(), &Labels::new())?;
    if let Some(existing) = state.endpoints.get(&reference) {
        if matches_request(existing, &request, &labels) {
            let state = existing.object.connection.state;
            if state == ConnectionState::Disconnected {
                let detail = format!(
                    "endpoint {reference} exists already, and its connection is {state}: ask for a new one with \
                     `plgw endpoint reconnect {reference}`"
                );
                return Err(Problem::new(ProblemCode::AlreadyExists, detail).at("name"));
            }
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Endpoint, &reference)?;
    }
    let network = Reference::new(tenant.clone(), request.network.clone());
    let Some(found) = state.networks.get(&network) else {
        return Err(Problem::invalid(
            "network",
            format!("there is no network {network}: create it first"),
        ));
    };
    let addresses = if request.addresses.is_empty() {
        allocate(state, context.host, &network, &found.object, &reference)?
    } else {
        check_addresses(
            state,
            context.host,
            &network,
            &found.object,
            &request.addresses,
        )?;
        request.addresses
    };
    let (service, record) =
        lookup_visible_service(state, context, tenant, &request.service, trusted)?;
    let resource = request.resource.unwrap_or_else(default_resource);
    check_resource(record, &request.service, &resource)?;
    let has = State::owned_by(&state.endpoints, tenant).count();
    check_quota(owner, policy, Kind::Endpoint, has)?;
    check_connections(state, tenant, service, record)?;
    let slot = state.free_slot();
    if slot >= policy.max_connections {
        return Err(Problem::new(
            ProblemCode::LimitReached,
            format!(
                "the gateway has reached its limit of {} connections",
                policy.max_connections
            ),
        ));
    }
    let connection = requested_connection(state, context, tenant, record, slot);
    let endpoint = Endpoint {
        network: request.network,
        addresses,
        service: request.service,
        resource,
        request_message: request.request_message,
        service_identity: ServiceIdentity {
            reference: service.clone(),
            uid: record.meta.uid,
        },
        connection,
    };
    let record = Record::create(context, name, labels, endpoint);
    Ok(vec![Change::Put(Object::Endpoint(tenant.clone(), record))])
}

/// Returns the connection of a new request: Pending, or Approved if the service approves the tenant automatically. Its
/// link id is new, so that a decision about an earlier connection of the endpoint can't apply to it.
pub(super) fn requested_connection(
    state: &State,
    context: &mut OpContext<'_>,
    tenant: &Name,
    service: &Record<Service>,
    slot: u32,
) -> Connection {
    let approved = service.object.spec.auto_approves(tenant);
    let identifiers = &mut *context.identifiers;
    Connection {
        link_id: identifiers.number(&|number| state.number_is_taken(number)),
        slot,
        state: if approved {
            ConnectionState::Approved
        } else {
            ConnectionState::Pending
        },
        generation: if approved {
            identifiers.number(&|_| false)
        } else {
            0
        },
        reason: if approved {
            "approved automatically".to_owned()
        } else {
            String::new()
        },
        decided_by: approved.then(|| AUTO_APPROVAL.to_owned()),
        decided_at: approved.then_some(context.now),
        requested_at: Some(context.now),
    }
}

/// Refuses a resource that the service does not have. `given` is the service as the request names it.
pub(super) fn check_resource(
    service: &Record<Service>,
    given: &str,
    resource: &Name,
) -> Result<(), Problem> {
    if service.object.spec.resource(resource).is_some() {
        return Ok(());
    }
    Err(Problem::invalid(
        "resource",
        format!("service {given} offers no resource {resource}"),
    ))
}

/// Changes an endpoint's labels. Its other fields never change, because the approval applies to them.
///
/// # Errors
/// The endpoint does not exist, is at another version, or another field would change.
pub fn update_endpoint(
    state: &State,
    context: &OpContext<'_>,
    reference: &Reference,
    request: EndpointRequest,
) -> Result<Vec<Change>, Problem> {
    let old = existing_endpoint(state, reference)?;
    check_same_name(request.name.as_ref(), &reference.name)?;
    old.expect_version(request.version)?;
    let labels = checked_labels(request.labels, &old.meta.labels)?;
    let endpoint = old.object.clone();
    let resource = request.resource.unwrap_or_else(default_resource);
    for (field, same) in [
        ("network", request.network == endpoint.network),
        (
            "addresses",
            request.addresses.is_empty() || request.addresses == endpoint.addresses,
        ),
        ("service", request.service == endpoint.service),
        ("resource", resource == endpoint.resource),
        (
            "request_message",
            request.request_message == endpoint.request_message,
        ),
    ] {
        if !same {
            return Err(Problem::invalid(
                field,
                format!(
                    "{field} of an endpoint can't be changed, because its connection was requested with \
                     it: delete the endpoint and create another, or apply a manifest with --replace"
                ),
            ));
        }
    }
    let record = old.update(context, labels, endpoint);
    Ok(vec![Change::Put(Object::Endpoint(
        reference.tenant.clone(),
        record,
    ))])
}

/// Deletes an endpoint, and with it its connection.
///
/// # Errors
/// The endpoint does not exist.
pub fn delete_endpoint(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    let record = existing_endpoint(state, reference)?;
    Ok(vec![Change::Delete(Object::Endpoint(
        reference.tenant.clone(),
        record.clone(),
    ))])
}

pub(super) fn existing_endpoint<'a>(
    state: &'a State,
    reference: &Reference,
) -> Result<&'a Record<Endpoint>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let found = state.endpoints.get(reference);
    found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))
}

/// Returns true if the endpoint is as requested.
fn matches_request(
    existing: &Record<Endpoint>,
    request: &EndpointRequest,
    labels: &Labels,
) -> bool {
    let endpoint = &existing.object;
    let resource = request.resource.clone().unwrap_or_else(default_resource);
    existing.meta.labels == *labels
        && endpoint.network == request.network
        && (request.addresses.is_empty() || endpoint.addresses == request.addresses)
        && endpoint.service == request.service
        && endpoint.resource == resource
        && endpoint.request_message == request.request_message
}

/// Refuses two addresses of one family, and an address that is not usable or not free in the network.
fn check_addresses(
    state: &State,
    host: &HostAddresses,
    network: &Reference,
    found: &Network,
    addresses: &[IpAddr],
) -> Result<(), Problem> {
    for (index, address) in addresses.iter().enumerate() {
        let field = format!("addresses[{index}]");
        if addresses[..index]
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            return Err(Problem::invalid(
                field,
                "an endpoint has one address of each family",
            ));
        }
        check_host(&field, *address)?;
        found.check_member(&field, *address)?;
        if let Some(detail) = host.conflict(state, network, found, *address) {
            return Err(Problem::new(ProblemCode::InUse, detail).at(field));
        }
        check_free(state, network, *address).map_err(|problem| problem.at(field))?;
    }
    Ok(())
}

/// Refuses an address that an endpoint, a backend or SNAT of the network uses.
pub(super) fn check_free(
    state: &State,
    network: &Reference,
    address: IpAddr,
) -> Result<(), Problem> {
    let in_use = |what: String| {
        Problem::new(
            ProblemCode::InUse,
            format!("{address} is {what} in {network}"),
        )
    };
    let occupancy = state.occupancy(network);
    if let Some(other) = occupancy.endpoint_at(address) {
        return Err(in_use(format!("the address of endpoint {other}")));
    }
    if let Some((_, service)) = occupancy.nat_range_at(address) {
        return Err(in_use(format!("a source NAT address of service {service}")));
    }
    let mut backends = occupancy.backends_in(AddressRange::one(address));
    match backends.next() {
        Some((_, service)) => Err(in_use(format!("a backend of service {service}"))),
        None => Ok(()),
    }
}

/// Returns the service with an alias or reference. A service that is not visible to the tenant is refused in the same
/// way as one that does not exist, unless the caller is the operator, who sees every service. A service is always
/// visible to its owner.
pub(super) fn lookup_visible_service<'a>(
    state: &'a State,
    context: &OpContext<'_>,
    tenant: &Name,
    given: &str,
    trusted: bool,
) -> Result<(&'a Reference, &'a Record<Service>), Problem> {
    let reference = if given.contains('/') {
        let reference: Reference = given
            .parse()
            .map_err(|error| Problem::invalid("service", format!("{error}")))?;
        Some(reference)
    } else {
        state.service_by_alias(given).cloned()
    };
    let found = reference.and_then(|reference| state.services.get_key_value(&reference));
    let not_found = || {
        let shown: String = given.chars().take(200).collect();
        Problem::not_found(Kind::Service, &shown).at("service")
    };
    let (reference, record) = found.ok_or_else(not_found)?;
    let spec = &record.object.spec;
    if trusted || reference.tenant == *tenant || spec.is_visible_to(tenant) {
        return Ok((reference, record));
    }
    if !context.is_operator {
        return Err(not_found());
    }
    let detail = if spec.denied.contains(tenant) {
        format!(
            "service {reference} denies tenant {tenant}: remove the tenant from the service's list `denied`"
        )
    } else {
        format!(
            "service {reference} is not visible to tenant {tenant}: add the tenant to the service's list `visibility`"
        )
    };
    Err(Problem::invalid("service", detail))
}

pub(super) fn check_connections(
    state: &State,
    tenant: &Name,
    service: &Reference,
    record: &Record<Service>,
) -> Result<(), Problem> {
    let Some(limit) = record.object.spec.max_connections_per_tenant else {
        return Ok(());
    };
    let has = state
        .endpoints_of_service(service)
        .filter(|(endpoint, other)| {
            endpoint.tenant == *tenant
                && other.object.connection.state != ConnectionState::Disconnected
        })
        .count();
    if u32::try_from(has).is_ok_and(|has| has < limit) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::LimitReached,
        format!("tenant {tenant} has {has} connections to this service, which allows {limit} each"),
    )
    .at("service"))
}
