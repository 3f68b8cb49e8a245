//! Identities: mappings of external identities (OIDC claims, client certificates) to roles in a tenant.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        AppState,
        caller::{Authorized, ManageCredentials, Read},
        page::{Page, PageRequest},
        request::{JsonBody, PathParameters, QueryParameters, parse_path_reference},
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        view::{self, IdentityView},
    },
    model::{
        Kind, Name, Problem, Reference, State,
        identity::IdentityRequest,
        operations::{create_identity, delete_identity},
    },
};

/// List a tenant's identities.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/identities", operation_id = "list_identities", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<IdentityView>, description = "The identities, by name"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<IdentityView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().identities, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::identity(reference, record)),
    )?;
    Ok(Json(page))
}

/// Map an external identity (OIDC claim, client certificate) to a role in the tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/identities", operation_id = "create_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = IdentityRequest,
    responses(
        (status = 201, body = IdentityView, description = "The identity was created"),
        (status = 200, body = IdentityView, description = "An identical identity existed already"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    JsonBody(request, _permit): JsonBody<IdentityRequest>,
) -> CreateResult<IdentityView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let change = agent.change(&caller.caller, |state, context, policy| {
        create_identity(state, context, policy, &caller.tenant, request)
    });
    let new = change.await?;
    let controller = agent.controller.lock().await;
    let found = controller.state().identities.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Identity, &reference))?;
    Ok(create_response(new, view::identity(&reference, record)))
}

/// Show an identity.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/identities/{name}", operation_id = "show_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = IdentityView, description = "The identity"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<IdentityView> {
    let reference = parse_path_reference(Kind::Identity, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    let found = controller.state().identities.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Identity, &reference))?;
    Ok(Json(view::identity(&reference, record)))
}

/// Delete an identity, with immediate effect on the callers that it matched.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/identities/{name}", operation_id = "delete_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "The identity was deleted"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    PathParameters(path): PathParameters<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let reference = parse_path_reference(Kind::Identity, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, _, _| {
        delete_identity(state, &reference)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
