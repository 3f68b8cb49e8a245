//! Tenants.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        Shared,
        caller::{Caller, In, Operate, Operator, Read},
        page::{Page, PageRequest},
        request::{Body, Creation, Parameters, PathParts, name_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
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

/// List the tenants in which the caller has a role; all for the operator.
#[utoipa::path(
    get, path = "/v1/tenants", operation_id = "list_tenants", tag = "tenant",
    params(PageRequest),
    responses((status = 200, body = Page<TenantView>, description = "The tenants, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    Caller(caller): Caller,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<TenantView>> {
    let core = agent.core.lock().await;
    let tenants = core.state.tenants.values();
    let view = page.of(
        tenants.filter(|record| caller.sees(&record.meta.name)),
        |record| record.meta.name.clone(),
        |record| Ok(view::tenant(&core.state, record)),
    )?;
    Ok(Json(view))
}

/// Create a tenant.
#[utoipa::path(
    post, path = "/v1/tenants", operation_id = "create_tenant", tag = "tenant",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is carried out once", min_length = 1, max_length = 255)),
    request_body = TenantRequest,
    responses(
        (status = 201, body = TenantView, description = "It was created"),
        (status = 200, body = TenantView, description = "It was there already, just so"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    Operator(caller): Operator,
    mut creation: Creation<TenantRequest>,
) -> Created<TenantView> {
    let attempt = creation.attempt();
    let name = creation.request.name.clone();
    let mut core = agent.core.lock().await;
    let new = core.change_once(&caller, attempt, |state, context, _| {
        create_tenant(state, context, creation.request)
    })?;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    Ok(created(new, view_of(&core.state, &name)?))
}

/// Show a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", operation_id = "show_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Its name")),
    responses((status = 200, body = TenantView, description = "The tenant"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
) -> Answer<TenantView> {
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core.state, &caller.tenant)?))
}

/// Change a tenant's quotas and labels.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}", operation_id = "update_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Its name")),
    request_body = TenantRequest,
    responses((status = 200, body = TenantView, description = "The tenant as it is now"), ChangeProblems),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    caller: In<Operate>,
    Body(request, _permit): Body<TenantRequest>,
) -> Answer<TenantView> {
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        update_tenant(state, context, &caller.tenant, request)
    })?;
    Ok(Json(view_of(&core.state, &caller.tenant)?))
}

/// Delete a tenant that owns nothing.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", operation_id = "delete_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Operate>,
    PathParts(name): PathParts<String>,
) -> Result<StatusCode, Refusal> {
    let name = name_in_path(Kind::Tenant, &name)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| delete_tenant(state, &name))?;
    Ok(StatusCode::NO_CONTENT)
}
