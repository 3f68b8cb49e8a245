//! Creating, changing and deleting networks.

use crate::model::{
    Change, Code, Context, Kind, Name, Network, Object, Problem, Record, Reference, State,
    network::NetworkRequest,
    operations::{Policy, check_quota, refuse_existing, required_name, same_name, tenant_of},
    record::{Labels, checked_labels},
};

/// Creates a network.
///
/// # Errors
/// What is wrong with the request, or an interface that another network has.
pub fn create_network(
    state: &State,
    context: &mut Context<'_>,
    policy: &Policy,
    tenant: &Name,
    request: NetworkRequest,
) -> Result<Vec<Change>, Problem> {
    let owner = tenant_of(state, tenant)?;
    let name = required_name(request.name.clone())?;
    let reference = Reference::new(tenant.clone(), name.clone());
    request.check()?;
    let labels = checked_labels(request.labels.clone(), &Labels::new())?;
    if let Some(there) = state.networks.get(&reference) {
        if there.object == network_of(&request, there.object.number) && there.meta.labels == labels
        {
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Network, &reference)?;
    }
    check_interfaces(state, &reference, &request)?;
    let has = State::owned(&state.networks, tenant).count();
    check_quota(owner, policy, Kind::Network, has)?;
    let number = context
        .identifiers
        .number(&|number| state.number_is_taken(number));
    let record = Record::create(context, name, labels, network_of(&request, number));
    Ok(vec![Change::Put(Object::Network(tenant.clone(), record))])
}

/// Whether the network is what is asked for.
pub(super) fn is_asked_for(there: &Record<Network>, request: &NetworkRequest) -> bool {
    there.object == network_of(request, there.object.number)
        && request
            .labels
            .as_ref()
            .is_none_or(|labels| *labels == there.meta.labels)
}

/// The network that is asked for.
fn network_of(request: &NetworkRequest, number: u32) -> Network {
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
/// As for creating one, and another version.
pub fn update_network(
    state: &State,
    context: &Context<'_>,
    reference: &Reference,
    request: NetworkRequest,
) -> Result<Vec<Change>, Problem> {
    let old = find(state, reference)?;
    same_name(request.name.as_ref(), &reference.name)?;
    old.expect_version(request.version)?;
    request.check()?;
    check_interfaces(state, reference, &request)?;
    let network = network_of(&request, old.object.number);
    check_users(state, reference, &network)?;
    let labels = checked_labels(request.labels, &old.meta.labels)?;
    let record = old.update(context, labels, network);
    Ok(vec![Change::Put(Object::Network(
        reference.tenant.clone(),
        record,
    ))])
}

/// Deletes a network that nothing is in.
///
/// # Errors
/// There is no such network, or something is in it.
pub fn delete_network(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    let record = find(state, reference)?;
    let users: Vec<String> = state
        .users_of_network(reference)
        .map(|(kind, user)| format!("{kind} {user}"))
        .collect();
    if let [first, rest @ ..] = users.as_slice() {
        let more = if rest.is_empty() {
            String::new()
        } else {
            format!(" and {} more", rest.len())
        };
        return Err(Problem::new(
            Code::HasDependents,
            format!("network {reference} is used by {first}{more}: delete them first"),
        ));
    }
    Ok(vec![Change::Delete(Object::Network(
        reference.tenant.clone(),
        record.clone(),
    ))])
}

/// What is in the network must be able to stay.
fn check_users(state: &State, reference: &Reference, network: &Network) -> Result<(), Problem> {
    for (address, endpoint) in state.addresses_of_network(reference) {
        network.check_member("", address).map_err(|problem| {
            let detail = format!("endpoint {endpoint} could not stay: {}", problem.detail);
            Problem::new(Code::HasDependents, detail).at("prefixes")
        })?;
    }
    Ok(())
}

fn find<'a>(state: &'a State, reference: &Reference) -> Result<&'a Record<Network>, Problem> {
    tenant_of(state, &reference.tenant)?;
    let found = state.networks.get(reference);
    found.ok_or_else(|| Problem::not_found(Kind::Network, reference))
}

/// An interface leads to one network only: it is what tells a packet's network. Who has it is not
/// said, since it may be another tenant.
fn check_interfaces(
    state: &State,
    reference: &Reference,
    request: &NetworkRequest,
) -> Result<(), Problem> {
    for (place, attachment) in request.attachments.iter().enumerate() {
        let owner = state.network_of_interface(&attachment.interface);
        if owner.is_some_and(|owner| owner != reference) {
            return Err(Problem::new(
                Code::InUse,
                format!(
                    "interface {} is attached to another network",
                    attachment.interface
                ),
            )
            .at(format!("attachments[{place}].interface")));
        }
    }
    Ok(())
}
