//! Services: the provider's side of private links.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        caller::{Authorized, Read, Services},
        page::{Page, PageRequest},
        request::{
            IdempotentJson, JsonBody, PathParameters, QueryParameters, parse_path_reference,
        },
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        view::{self, ServiceView},
    },
    model::{
        Kind, Name, Problem, Reference, State,
        operations::{create_service, delete_service, update_service},
        service::ServiceRequest,
    },
};

/// Options of deleting a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeleteServiceParameters {
    /// Delete the service even if connections to it are approved; their flows end at once.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
}

fn build_view(controller: &Controller, reference: &Reference) -> Result<ServiceView, ApiError> {
    let found = controller.state().services.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Service, reference))?;
    Ok(view::service(controller, reference, record))
}

/// List a tenant's services.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services", operation_id = "list_services", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<ServiceView>, description = "The services, by name"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<ServiceView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().services, &caller.tenant)
            .map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| build_view(&controller, reference),
    )?;
    Ok(Json(page))
}

/// Create a service.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/services", operation_id = "create_service", tag = "service",
    params(
        ("tenant" = Name, Path, description = "The owner"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is carried out once", min_length = 1, max_length = 255),
    ),
    request_body = ServiceRequest,
    responses(
        (status = 201, body = ServiceView, description = "The service was created"),
        (status = 200, body = ServiceView, description = "An identical service existed already"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Services>,
    mut creation: IdempotentJson<ServiceRequest>,
) -> CreateResult<ServiceView> {
    let idempotency_key = creation.take_idempotency_key();
    let request = creation.request;
    let name = request.name.clone();
    let change =
        agent.change_idempotent(&caller.caller, idempotency_key, |state, context, policy| {
            create_service(state, context, policy, &caller.tenant, request)
        });
    let new = change.await?;
    let controller = agent.controller.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    Ok(create_response(new, build_view(&controller, reference)?))
}

/// Show a service.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "show_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = ServiceView, description = "The service"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<ServiceView> {
    let reference = &parse_path_reference(Kind::Service, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(&controller, reference)?))
}

/// Change a service.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "update_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = ServiceRequest,
    responses((status = 200, body = ServiceView, description = "The service after the change"), WriteErrors),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Services>,
    PathParameters(path): PathParameters<(String, String)>,
    JsonBody(request, _permit): JsonBody<ServiceRequest>,
) -> ApiResult<ServiceView> {
    let reference = &parse_path_reference(Kind::Service, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, context, _| {
        update_service(state, context, reference, request)
    });
    change.await?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(&controller, reference)?))
}

/// Delete a service; its connections become Disconnected.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "delete_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name"), DeleteServiceParameters),
    responses((status = 204, description = "The service was deleted"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Services>,
    PathParameters(path): PathParameters<(String, String)>,
    QueryParameters(options): QueryParameters<DeleteServiceParameters>,
) -> Result<StatusCode, ApiError> {
    let reference = &parse_path_reference(Kind::Service, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, context, _| {
        delete_service(state, context, reference, options.force)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
