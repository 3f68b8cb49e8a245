//! Services.

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
        view::{self, ServiceView},
    },
    model::{
        Kind, Problem, Reference, State,
        operations::{create_service, delete_service, update_service},
        service::ServiceRequest,
    },
};

/// How a service is deleted.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteOptions {
    /// Even though connections are approved: they are cut.
    #[serde(default)]
    force: bool,
}

fn view_of(core: &Core, reference: &Reference) -> Result<ServiceView, Refusal> {
    let found = core.state.services.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Service, reference))?;
    Ok(view::service(core, reference, record))
}

pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    PathParts(tenant): PathParts<String>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<ServiceView>> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&tenant) {
        return Err(Problem::no_tenant(&tenant).into());
    }
    let references: Vec<&Reference> = State::owned(&core.state.services, &tenant)
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
    Body(request): Body<ServiceRequest>,
) -> Created<ServiceView> {
    let tenant = name_in_path(Kind::Tenant, &tenant)?;
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, policy| {
        create_service(state, context, policy, &tenant, request)
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
) -> Answer<ServiceView> {
    let reference = reference_in_path(Kind::Service, &path)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, &reference)?))
}

pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(path): PathParts<(String, String)>,
    Body(request): Body<ServiceRequest>,
) -> Answer<ServiceView> {
    let reference = reference_in_path(Kind::Service, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        update_service(state, context, &reference, request)
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
    Parameters(options): Parameters<DeleteOptions>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Service, &path)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        delete_service(state, context, &reference, options.force)
    })?;
    drop(core);
    agent.refresh().await?;
    Ok(StatusCode::NO_CONTENT)
}
