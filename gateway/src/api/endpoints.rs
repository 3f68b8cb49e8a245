//! Endpoints.

use std::net::IpAddr;

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
        view::{self, EndpointView},
    },
    model::{
        Kind, Problem, Reference, State,
        endpoint::EndpointRequest,
        operations::{create_endpoint, delete_endpoint, update_endpoint},
    },
};

fn view_of(core: &Core, reference: &Reference) -> Result<EndpointView, Refusal> {
    let found = core.state.endpoints.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
    Ok(view::endpoint(core, reference, record)?)
}

pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    PathParts(tenant): PathParts<String>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<EndpointView>> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&tenant) {
        return Err(Problem::no_tenant(&tenant).into());
    }
    let references: Vec<&Reference> = State::owned(&core.state.endpoints, &tenant)
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
    Body(request): Body<EndpointRequest>,
) -> Created<EndpointView> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let name = request.name.clone();
    let ipv6 = request.addresses.iter().any(IpAddr::is_ipv6);
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, policy| {
        create_endpoint(state, context, policy, &tenant, request)
    })?;
    drop(core);
    if ipv6 {
        // Its network's interfaces must receive what is for the address's group.
        agent.refresh().await?;
    }
    let core = agent.core.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    Ok(created(view_of(&core, &Reference::new(tenant, name))?))
}

pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<EndpointView> {
    let reference = reference_in_path(Kind::Endpoint, &path)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, &reference)?))
}

pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(path): PathParts<(String, String)>,
    Body(request): Body<EndpointRequest>,
) -> Answer<EndpointView> {
    let reference = reference_in_path(Kind::Endpoint, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        update_endpoint(state, context, &reference, request)
    })?;
    Ok(Json(view_of(&core, &reference)?))
}

pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Endpoint, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, _, _| {
        delete_endpoint(state, &reference)
    })?;
    Ok(StatusCode::NO_CONTENT)
}
