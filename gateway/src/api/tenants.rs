//! Tenants.

use axum::{
    Json,
    extract::{ConnectInfo, State as AgentState},
    http::StatusCode,
};

use crate::{
    api::{
        Shared,
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, name_in_path},
        response::{Answer, Created, Refusal, created},
        socket::Caller,
        view::{self, TenantView},
    },
    model::{
        Kind, Name, Problem, State,
        operations::{create_tenant, delete_tenant, update_tenant},
        tenant::TenantRequest,
    },
};

fn view_of(state: &State, name: &Name) -> Result<TenantView, Problem> {
    let record = state
        .tenants
        .get(name)
        .ok_or_else(|| Problem::no_tenant(name))?;
    Ok(view::tenant(state, record))
}

pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<TenantView>> {
    let core = agent.core.lock().await;
    let view = page.of(
        core.state.tenants.values(),
        |record| record.meta.name.to_string(),
        |record| Ok(view::tenant(&core.state, record)),
    )?;
    Ok(Json(view))
}

pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Body(request): Body<TenantRequest>,
) -> Created<TenantView> {
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        create_tenant(state, context, request)
    })?;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    Ok(created(view_of(&core.state, &name)?))
}

pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    PathParts(name): PathParts<String>,
) -> Answer<TenantView> {
    let name = name_in_path(Kind::Tenant, &name)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core.state, &name)?))
}

pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(name): PathParts<String>,
    Body(request): Body<TenantRequest>,
) -> Answer<TenantView> {
    let name = name_in_path(Kind::Tenant, &name)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        update_tenant(state, context, &name, request)
    })?;
    Ok(Json(view_of(&core.state, &name)?))
}

pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts(name): PathParts<String>,
) -> Result<StatusCode, Refusal> {
    let name = name_in_path(Kind::Tenant, &name)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, _, _| delete_tenant(state, &name))?;
    Ok(StatusCode::NO_CONTENT)
}
