//! Tokens: secrets by which programs and people act for a tenant.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        Shared,
        caller::{Access, In, Read},
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
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
    responses((status = 200, body = Page<TokenView>, description = "The tokens, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<TokenView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.tokens, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::token(reference, record)),
    )?;
    Ok(Json(page))
}

/// Create a token. Its secret is shown in this answer only.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/tokens", operation_id = "create_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = TokenRequest,
    responses(
        (status = 201, body = NewTokenView, description = "It was created"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    Body(request, _permit): Body<TokenRequest>,
) -> Created<NewTokenView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let text = token::text(RandomIdentifiers.secret());
    let mut core = agent.core.lock().await;
    let new = core.change(&caller.caller, |state, context, _| {
        create_token(state, context, &caller.tenant, request, &text)
    })?;
    let found = core.state.tokens.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Token, &reference))?;
    Ok(created(new, view::new_token(&reference, record, text)))
}

/// Show a token.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/tokens/{name}", operation_id = "show_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = TokenView, description = "The token"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<TokenView> {
    let reference = reference_in_path(Kind::Token, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    let found = core.state.tokens.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Token, &reference))?;
    Ok(Json(view::token(&reference, record)))
}

/// Revoke a token: from now on it is unknown.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/tokens/{name}", operation_id = "delete_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Token, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| {
        delete_token(state, &reference)
    })?;
    Ok(StatusCode::NO_CONTENT)
}
