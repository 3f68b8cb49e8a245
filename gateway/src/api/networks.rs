//! Networks.

use axum::{
    Json,
    extract::{ConnectInfo, State as AgentState},
    http::StatusCode,
};

use crate::{
    agent::core::Core,
    api::{
        Shared,
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, name_in_path, reference_in_path},
        response::{Answer, Created, Refusal, created},
        socket::Caller,
        view::{self, NetworkView},
    },
    model::{
        Kind, Problem, Reference, State,
        network::NetworkRequest,
        operations::{create_network, delete_network, update_network},
    },
};

fn view_of(core: &Core, reference: &Reference) -> Result<NetworkView, Refusal> {
    let found = core.state.networks.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Network, reference))?;
    Ok(view::network(core, reference, record))
}

pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    PathParts(tenant): PathParts<String>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<NetworkView>> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&tenant) {
        return Err(Problem::no_tenant(&tenant).into());
    }
    let references: Vec<&Reference> = State::owned(&core.state.networks, &tenant)
        .map(|(reference, _)| reference)
        .collect();
    let page = page.of(
        references.iter(),
        |reference| reference.name.to_string(),
        |reference| view_of(&core, reference),
    )?;
    Ok(Json(page))
}

pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(tenant): PathParts<String>,
    Body(request): Body<NetworkRequest>,
) -> Created<NetworkView> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, policy| {
        create_network(state, context, policy, &tenant, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.refresh().await?;
    let core = agent.core.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    Ok(created(view_of(&core, &Reference::new(tenant, name))?))
}

pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<NetworkView> {
    let reference = reference_in_path(Kind::Network, &path)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, &reference)?))
}

pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(path): PathParts<(String, String)>,
    Body(request): Body<NetworkRequest>,
) -> Answer<NetworkView> {
    let reference = reference_in_path(Kind::Network, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        update_network(state, context, &reference, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.refresh().await?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, &reference)?))
}

pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Network, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, _, _| {
        delete_network(state, &reference)
    })?;
    drop(core);
    agent.refresh().await?;
    Ok(StatusCode::NO_CONTENT)
}
