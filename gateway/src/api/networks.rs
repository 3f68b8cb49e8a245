//! Networks. Which interfaces are whose is for the operator to say.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    agent::core::Core,
    api::{
        Shared,
        caller::{In, Operate, Read},
        page::{Page, PageRequest},
        request::{Body, Creation, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
        view::{self, NetworkView},
    },
    model::{
        Kind, Name, Problem, Reference, State,
        network::NetworkRequest,
        operations::{create_network, delete_network, update_network},
    },
};

fn view_of(core: &Core, reference: &Reference) -> Result<NetworkView, Refusal> {
    let found = core.state.networks.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Network, reference))?;
    Ok(view::network(core, reference, record))
}

/// List a tenant's networks.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/networks", operation_id = "list_networks", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<NetworkView>, description = "The networks, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<NetworkView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.networks, &caller.tenant).map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| view_of(&core, reference),
    )?;
    Ok(Json(page))
}

/// Create a network.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/networks", operation_id = "create_network", tag = "network",
    params(
        ("tenant" = Name, Path, description = "The owner"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is carried out once", min_length = 1, max_length = 255),
    ),
    request_body = NetworkRequest,
    responses(
        (status = 201, body = NetworkView, description = "It was created"),
        (status = 200, body = NetworkView, description = "It was there already, just so"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Operate>,
    mut creation: Creation<NetworkRequest>,
) -> Created<NetworkView> {
    let attempt = creation.attempt();
    let request = creation.request;
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    let new = core.change_once(&caller.caller, attempt, |state, context, policy| {
        create_network(state, context, policy, &caller.tenant, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.look().await?;
    let core = agent.core.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    Ok(created(new, view_of(&core, reference)?))
}

/// Show a network.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "show_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = NetworkView, description = "The network"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<NetworkView> {
    let reference = &reference_in_path(Kind::Network, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, reference)?))
}

/// Change a network.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "update_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = NetworkRequest,
    responses((status = 200, body = NetworkView, description = "The network as it is now"), ChangeProblems),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    caller: In<Operate>,
    PathParts(path): PathParts<(String, String)>,
    Body(request, _permit): Body<NetworkRequest>,
) -> Answer<NetworkView> {
    let reference = &reference_in_path(Kind::Network, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        update_network(state, context, reference, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.look().await?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, reference)?))
}

/// Delete a network that nothing is in.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "delete_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Operate>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = &reference_in_path(Kind::Network, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| {
        delete_network(state, reference)
    })?;
    drop(core);
    agent.look().await?;
    Ok(StatusCode::NO_CONTENT)
}
