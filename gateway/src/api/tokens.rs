//! Tokens: bearer credentials of a tenant.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        AppState,
        caller::{Authorized, ManageCredentials, Read},
        page::{Page, PageRequest},
        request::{JsonBody, PathParameters, QueryParameters, parse_path_reference},
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
        view::{self, NewTokenView, TokenView},
    },
    model::{
        Identifiers as _, Kind, Name, Problem, RandomIdentifiers, Reference, State,
        operations::{create_token, delete_token},
        token::{self, TokenRequest},
    },
};

/// List a tenant's tokens.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/tokens", operation_id = "list_tokens", tag = "token",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<TokenView>, description = "The tokens, by name"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<TokenView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().tokens, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::token(reference, record)),
    )?;
    Ok(Json(page))
}

/// Create a token. Only this response shows its secret.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/tokens", operation_id = "create_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = TokenRequest,
    responses(
        (status = 201, body = NewTokenView, description = "The token was created"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    JsonBody(request, _permit): JsonBody<TokenRequest>,
) -> CreateResult<NewTokenView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let text = token::token_text(RandomIdentifiers.secret());
    let change = agent.change(&caller.caller, |state, context, _| {
        create_token(state, context, &caller.tenant, request, &text)
    });
    let new = change.await?;
    let controller = agent.controller.lock().await;
    let found = controller.state().tokens.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Token, &reference))?;
    Ok(create_response(
        new,
        view::new_token(&reference, record, text),
    ))
}

/// Show a token.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/tokens/{name}", operation_id = "show_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = TokenView, description = "The token"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<TokenView> {
    let reference = parse_path_reference(Kind::Token, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    let found = controller.state().tokens.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Token, &reference))?;
    Ok(Json(view::token(&reference, record)))
}

/// Revoke a token, with immediate effect.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/tokens/{name}", operation_id = "delete_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "The token was revoked"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    PathParameters(path): PathParameters<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let reference = parse_path_reference(Kind::Token, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, _, _| {
        delete_token(state, &reference)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
