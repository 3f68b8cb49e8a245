//! Tenants: owners of networks, services and endpoints.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        AppState,
        authorize::{Authorized, Caller, ManageGateway, Operator, Read},
        handlers::IDEMPOTENCY_KEY,
        present,
        request::{IdempotentJson, JsonBody, QueryParameters},
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        types::{Page, PageRequest, TenantView},
    },
    model::{
        Name, Problem, State,
        operations::{create_tenant, delete_tenant, required_name, update_tenant},
        tenant::TenantRequest,
    },
};

fn build_view(state: &State, name: &Name) -> Result<TenantView, Problem> {
    let record = state
        .tenants
        .get(name)
        .ok_or_else(|| Problem::no_tenant(name))?;
    Ok(present::tenant(state, record))
}

/// List the tenants in which the caller has a role; for the operator, all tenants.
#[utoipa::path(
    get, path = "/v1/tenants", operation_id = "list_tenants", tag = "tenant",
    params(PageRequest),
    responses((status = 200, body = Page<TenantView>, description = "The tenants, sorted by name"), ReadErrors),
)]
pub(in crate::api) async fn list(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<TenantView>> {
    let controller = agent.controller.lock().await;
    let tenants = controller.state().tenants.values();
    let view = page.paginate(
        tenants.filter(|record| caller.can_see(&record.meta.name)),
        |record| record.meta.name.clone(),
        |record| Ok(present::tenant(controller.state(), record)),
    )?;
    Ok(Json(view))
}

/// Create a tenant.
#[utoipa::path(
    post, path = "/v1/tenants", operation_id = "create_tenant", tag = "tenant",
    params(("Idempotency-Key" = Option<String>, Header, description = IDEMPOTENCY_KEY, min_length = 1, max_length = 255)),
    request_body = TenantRequest,
    responses(
        (status = 201, body = TenantView, description = "The tenant was created"),
        (status = 200, body = TenantView, description = "An identical tenant existed already"),
        WriteErrors,
    ),
)]
pub(in crate::api) async fn create(
    AgentState(agent): AgentState<AppState>,
    Operator(caller): Operator,
    mut creation: IdempotentJson<TenantRequest>,
) -> CreateResult<TenantView> {
    let key = creation.take_idempotency_key();
    let name = creation.request.name.clone();
    let name = required_name(name)?;
    agent
        .change_and_present(
            &caller,
            key,
            |state, context, _| create_tenant(state, context, creation.request),
            |controller, created| {
                let view = build_view(controller.state(), &name)?;
                Ok(create_response(created, view))
            },
        )
        .await
}

/// Show a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", operation_id = "show_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Name of the tenant")),
    responses((status = 200, body = TenantView, description = "The tenant"), ReadErrors),
)]
pub(in crate::api) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
) -> ApiResult<TenantView> {
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(controller.state(), &caller.tenant)?))
}

/// Change a tenant's quotas and labels.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}", operation_id = "update_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Name of the tenant")),
    request_body = TenantRequest,
    responses((status = 200, body = TenantView, description = "The tenant after the change"), WriteErrors),
)]
pub(in crate::api) async fn update(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageGateway>,
    JsonBody(request, _permit): JsonBody<TenantRequest>,
) -> ApiResult<TenantView> {
    agent
        .change_and_present(
            &caller.caller,
            None,
            |state, context, _| update_tenant(state, context, &caller.tenant, request),
            |controller, _| Ok(Json(build_view(controller.state(), &caller.tenant)?)),
        )
        .await
}

/// Delete a tenant that owns nothing.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", operation_id = "delete_tenant", tag = "tenant",
    params(("tenant" = Name, Path, description = "Name of the tenant")),
    responses((status = 204, description = "The tenant was deleted"), WriteErrors),
)]
pub(in crate::api) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageGateway>,
) -> Result<StatusCode, ApiError> {
    agent
        .change(&caller.caller, |state, _, _| {
            delete_tenant(state, &caller.tenant)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
