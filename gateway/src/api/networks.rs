//! Networks. Only the operator changes them, since they name interfaces of the host.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        caller::{Authorized, ManageGateway, Read},
        page::{Page, PageRequest},
        request::{
            IdempotentJson, JsonBody, PathParameters, QueryParameters, parse_path_reference,
        },
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        view::{self, NetworkView},
    },
    model::{
        Kind, Name, Problem, Reference, State,
        network::NetworkRequest,
        operations::{create_network, delete_network, update_network},
    },
};

fn build_view(controller: &Controller, reference: &Reference) -> Result<NetworkView, ApiError> {
    let found = controller.state().networks.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Network, reference))?;
    Ok(view::network(controller, reference, record))
}

/// List a tenant's networks.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/networks", operation_id = "list_networks", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<NetworkView>, description = "The networks, by name"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<NetworkView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().networks, &caller.tenant)
            .map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| build_view(&controller, reference),
    )?;
    Ok(Json(page))
}

/// Create a network.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/networks", operation_id = "create_network", tag = "network",
    params(
        ("tenant" = Name, Path, description = "The owner"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key changes nothing and gets the same answer; see the manual", min_length = 1, max_length = 255),
    ),
    request_body = NetworkRequest,
    responses(
        (status = 201, body = NetworkView, description = "The network was created"),
        (status = 200, body = NetworkView, description = "An identical network existed already"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageGateway>,
    mut creation: IdempotentJson<NetworkRequest>,
) -> CreateResult<NetworkView> {
    let idempotency_key = creation.take_idempotency_key();
    let request = creation.request;
    let name = request.name.clone();
    let change =
        agent.change_idempotent(&caller.caller, idempotency_key, |state, context, policy| {
            create_network(state, context, policy, &caller.tenant, request)
        });
    let new = change.await?;
    let controller = agent.controller.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    Ok(create_response(new, build_view(&controller, reference)?))
}

/// Show a network.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "show_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = NetworkView, description = "The network"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<NetworkView> {
    let reference = &parse_path_reference(Kind::Network, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(&controller, reference)?))
}

/// Change a network.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "update_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = NetworkRequest,
    responses((status = 200, body = NetworkView, description = "The network after the change"), WriteErrors),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageGateway>,
    PathParameters(path): PathParameters<(String, String)>,
    JsonBody(request, _permit): JsonBody<NetworkRequest>,
) -> ApiResult<NetworkView> {
    let reference = &parse_path_reference(Kind::Network, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, context, _| {
        update_network(state, context, reference, request)
    });
    change.await?;
    let controller = agent.controller.lock().await;
    Ok(Json(build_view(&controller, reference)?))
}

/// Delete a network that no service or endpoint uses.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/networks/{name}", operation_id = "delete_network", tag = "network",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "The network was deleted"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageGateway>,
    PathParameters(path): PathParameters<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let reference = &parse_path_reference(Kind::Network, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, _, _| {
        delete_network(state, reference)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
