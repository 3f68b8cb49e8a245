//! Creating, changing and deleting networks.

use crate::model::{
    Change, HostAddresses, Kind, Name, Network, Object, OpContext, Problem, ProblemCode, Record,
    Reference, State,
    network::NetworkRequest,
    operations::{
        Policy, check_quota, check_same_name, existing_tenant, refuse_existing, required_name,
    },
    record::{Labels, checked_labels},
};

/// Creates a network.
///
/// # Errors
/// The request is invalid, or an interface is attached to another network.
pub fn create_network(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: NetworkRequest,
) -> Result<Vec<Change>, Problem> {
    let owner = existing_tenant(state, tenant)?;
    let name = required_name(request.name.clone())?;
    let reference = Reference::new(tenant.clone(), name.clone());
    request.check()?;
    let labels = checked_labels(request.labels.clone(), &Labels::new())?;
    if let Some(existing) = state.networks.get(&reference) {
        if existing.object == network_from_request(&request, existing.object.number)
            && existing.meta.labels == labels
        {
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Network, &reference)?;
    }
    check_interfaces(state, &reference, &request)?;
    check_host_uses(context, &request, None)?;
    let has = State::owned_by(&state.networks, tenant).count();
    check_quota(owner, policy, Kind::Network, has)?;
    let number = context
        .identifiers
        .number(&|number| state.number_is_taken(number));
    let record = Record::create(
        context,
        name,
        labels,
        network_from_request(&request, number),
    );
    Ok(vec![Change::Put(Object::Network(tenant.clone(), record))])
}

/// Returns true if the network is as requested.
pub(super) fn matches_request(existing: &Record<Network>, request: &NetworkRequest) -> bool {
    existing.object == network_from_request(request, existing.object.number)
        && request
            .labels
            .as_ref()
            .is_none_or(|labels| *labels == existing.meta.labels)
}

/// Returns the requested network.
fn network_from_request(request: &NetworkRequest, number: u32) -> Network {
    Network {
        attachments: request.attachments.clone(),
        isolated: request.isolated,
        mtu: request.mtu,
        prefixes: request.prefixes.clone(),
        routers: request.routers.clone(),
        pool: request.pool.clone(),
        number,
    }
}

/// Changes a network.
///
/// # Errors
/// As for [`create_network`]; or the network is at another version, or something in it could not stay.
pub fn update_network(
    state: &State,
    context: &OpContext<'_>,
    reference: &Reference,
    request: NetworkRequest,
) -> Result<Vec<Change>, Problem> {
    let old = existing_network(state, reference)?;
    check_same_name(request.name.as_ref(), &reference.name)?;
    old.expect_version(request.version)?;
    request.check()?;
    check_interfaces(state, reference, &request)?;
    check_host_uses(context, &request, Some(&old.object))?;
    let network = network_from_request(&request, old.object.number);
    check_users(state, context.host, reference, &old.object, &network)?;
    let labels = checked_labels(request.labels, &old.meta.labels)?;
    let record = old.update(context, labels, network);
    Ok(vec![Change::Put(Object::Network(
        reference.tenant.clone(),
        record,
    ))])
}

/// Deletes an unused network.
///
/// # Errors
/// The network does not exist, or a service or an endpoint is in it.
pub fn delete_network(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    let record = existing_network(state, reference)?;
    let users: Vec<String> = state
        .users_of_network(reference)
        .map(|(kind, user)| format!("{kind} {user}"))
        .collect();
    if let [first, others @ ..] = users.as_slice() {
        let more = if others.is_empty() {
            String::new()
        } else {
            format!(" and {} more", others.len())
        };
        return Err(Problem::new(
            ProblemCode::HasDependents,
            format!("network {reference} is used by {first}{more}: delete them first"),
        ));
    }
    Ok(vec![Change::Delete(Object::Network(
        reference.tenant.clone(),
        record.clone(),
    ))])
}

/// Refuses a change after which an endpoint, a backend or an SNAT address of the network would be invalid. Fields that
/// the change leaves as they were are not checked again.
fn check_users(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    old: &Network,
    network: &Network,
) -> Result<(), Problem> {
    let addresses_change = (&old.prefixes, &old.routers) != (&network.prefixes, &network.routers);
    let interfaces_change = old.attachments != network.attachments;
    let has_dependent = |field: &str, user: String, detail: &str| {
        let detail = format!("{user} could not stay: {detail}");
        Err(Problem::new(ProblemCode::HasDependents, detail).at(field))
    };
    for (address, endpoint) in state.addresses_of_network(reference) {
        let user = || format!("endpoint {endpoint}");
        if addresses_change && let Err(problem) = network.check_member("", address) {
            return has_dependent("prefixes", user(), &problem.detail);
        }
        let conflict = host.conflict(state, reference, network, address);
        if let Some(detail) = conflict.filter(|_| interfaces_change) {
            return has_dependent("attachments", user(), &detail);
        }
    }
    for (service, record) in state.services_of_network(reference) {
        let spec = &record.object.spec;
        for range in &spec.nat_addresses {
            let user = || format!("source NAT of service {service}");
            if addresses_change && let Err(problem) = network.check_nat_range("", *range) {
                return has_dependent("prefixes", user(), &problem.detail);
            }
            let conflict = host.range_conflict(state, reference, network, *range);
            if let Some(detail) = conflict.filter(|_| interfaces_change) {
                return has_dependent("attachments", user(), &detail);
            }
        }
        for backend in spec.resources.iter().flat_map(|r| &r.backends) {
            let user = || format!("a backend of service {service}");
            let mut reserved = network.reserved_addresses();
            let reserved = reserved.find(|(_, address)| *address == backend.address);
            if let Some((what, address)) = reserved.filter(|_| addresses_change) {
                return has_dependent("prefixes", user(), &format!("{address} is {what}"));
            }
            let conflict = host.conflict(state, reference, network, backend.address);
            if let Some(detail) = conflict.filter(|_| interfaces_change) {
                return has_dependent("attachments", user(), &detail);
            }
        }
    }
    Ok(())
}

fn existing_network<'a>(
    state: &'a State,
    reference: &Reference,
) -> Result<&'a Record<Network>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let found = state.networks.get(reference);
    found.ok_or_else(|| Problem::not_found(Kind::Network, reference))
}

/// Refuses an interface that is attached to another network, because a packet's network follows from its interface. The
/// refusal does not name the network, which may be another tenant's.
fn check_interfaces(
    state: &State,
    reference: &Reference,
    request: &NetworkRequest,
) -> Result<(), Problem> {
    for (index, attachment) in request.attachments.iter().enumerate() {
        let owner = state.network_by_interface(&attachment.interface);
        if owner.is_some_and(|owner| owner != reference) {
            return Err(Problem::new(
                ProblemCode::InUse,
                format!(
                    "interface {} is attached to another network",
                    attachment.interface
                ),
            )
            .at(format!("attachments[{index}].interface")));
        }
    }
    Ok(())
}

/// Refuses attachments that cut the gateway's host off, unless the request has `force`: interfaces that the host itself
/// uses, in a network that is isolated or becomes so with its last service. Of an isolated network, the host receives
/// nothing but ARP replies and neighbour advertisements; of any other, everything that is not for a local address of the
/// gateway. Attachments that are as before are not refused again.
fn check_host_uses(
    context: &OpContext<'_>,
    request: &NetworkRequest,
    old: Option<&Network>,
) -> Result<(), Problem> {
    let may_be_isolated = |isolated: Option<bool>| isolated != Some(false);
    for (index, attachment) in request.attachments.iter().enumerate() {
        let is_as_before = old.is_some_and(|old| {
            old.attachments.contains(attachment)
                && (may_be_isolated(old.isolated) || !may_be_isolated(request.isolated))
        });
        if request.force || is_as_before {
            continue;
        }
        let name = &attachment.interface;
        let refusal = |detail: String| {
            let field = format!("attachments[{index}].interface");
            Err(Problem::new(ProblemCode::InUse, detail).at(field))
        };
        if name == LOOPBACK {
            return refusal(format!(
                "{name} is the host's loopback interface, which leads to no network: name another interface, or force \
                 it (--force)"
            ));
        }
        let uses = context.host_uses.of_interface(name);
        if uses.is_empty() || !may_be_isolated(request.isolated) {
            continue;
        }
        let isolated = match request.isolated {
            Some(_) => "an isolated network",
            None => "an isolated network, as this one is while it has no service,",
        };
        return refusal(format!(
            "the gateway's host would lose {}, which {name} carries: {isolated} passes the host nothing \
             but answers of neighbours. Let packets for the host pass (isolated: false, --isolated false), or force it \
             (--force)",
            joined(uses)
        ));
    }
    Ok(())
}

/// Name of the loopback interface.
const LOOPBACK: &str = "lo";

/// Joins the parts of an enumeration.
fn joined(parts: &[String]) -> String {
    match parts {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        parts => parts.join(", "),
    }
}
