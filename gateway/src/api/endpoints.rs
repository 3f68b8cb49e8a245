//! Endpoints: the consumer's side of private links.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        caller::{Authorized, Endpoints, Read},
        page::{Page, PageRequest},
        request::{
            IdempotentJson, JsonBody, PathParameters, QueryParameters, parse_path_reference,
        },
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        view::{self, CounterDetail, EndpointView},
    },
    model::{
        Kind, Name, Principal, Problem, Reference, State,
        endpoint::EndpointRequest,
        operations::{create_endpoint, delete_endpoint, update_endpoint},
    },
};

fn build_view(
    controller: &Controller,
    caller: &Principal,
    reference: &Reference,
    detail: CounterDetail,
) -> Result<EndpointView, ApiError> {
    let found = controller.state().endpoints.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
    Ok(view::endpoint(
        controller, caller, reference, record, detail,
    )?)
}

/// List a tenant's endpoints.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints", operation_id = "list_endpoints", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<EndpointView>, description = "The endpoints, sorted by name, without drop counters"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<EndpointView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().endpoints, &caller.tenant)
            .map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| {
            build_view(
                &controller,
                &caller.caller,
                reference,
                CounterDetail::Totals,
            )
        },
    )?;
    Ok(Json(page))
}

/// Create an endpoint.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints", operation_id = "create_endpoint", tag = "endpoint",
    params(
        ("tenant" = Name, Path, description = "The owner"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is carried out once", min_length = 1, max_length = 255),
    ),
    request_body = EndpointRequest,
    responses(
        (status = 201, body = EndpointView, description = "The endpoint was created"),
        (status = 200, body = EndpointView, description = "An identical endpoint existed already"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Endpoints>,
    mut creation: IdempotentJson<EndpointRequest>,
) -> CreateResult<EndpointView> {
    let idempotency_key = creation.take_idempotency_key();
    let request = creation.request;
    let name = request.name.clone();
    let change =
        agent.change_idempotent(&caller.caller, idempotency_key, |state, context, policy| {
            create_endpoint(state, context, policy, &caller.tenant, request)
        });
    let new = change.await?;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    let controller = agent.controller.lock().await;
    Ok(create_response(
        new,
        build_view(&controller, &caller.caller, reference, CounterDetail::Drops)?,
    ))
}

/// Show an endpoint.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "show_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = EndpointView, description = "The endpoint"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<EndpointView> {
    let reference = &parse_path_reference(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(
        &controller,
        &caller.caller,
        reference,
        CounterDetail::Drops,
    )?))
}

/// Change an endpoint's labels; its service, resource and addresses never change.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "update_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = EndpointRequest,
    responses((status = 200, body = EndpointView, description = "The endpoint after the change"), WriteErrors),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Endpoints>,
    PathParameters(path): PathParameters<(String, String)>,
    JsonBody(request, _permit): JsonBody<EndpointRequest>,
) -> ApiResult<EndpointView> {
    let reference = &parse_path_reference(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, context, _| {
        update_endpoint(state, context, reference, request)
    });
    change.await?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(
        &controller,
        &caller.caller,
        reference,
        CounterDetail::Drops,
    )?))
}

/// Delete an endpoint and its connection.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "delete_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "The endpoint was deleted"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Endpoints>,
    PathParameters(path): PathParameters<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let reference = &parse_path_reference(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, _, _| {
        delete_endpoint(state, reference)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
