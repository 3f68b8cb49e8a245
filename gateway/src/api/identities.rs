//! Identities: who, of those that another system knows, acts for a tenant.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        Shared,
        caller::{Access, In, Read},
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
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
    responses((status = 200, body = Page<IdentityView>, description = "The identities, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<IdentityView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.identities, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::identity(reference, record)),
    )?;
    Ok(Json(page))
}

/// Say who, of those that another system knows, acts for the tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/identities", operation_id = "create_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = IdentityRequest,
    responses(
        (status = 201, body = IdentityView, description = "It was created"),
        (status = 200, body = IdentityView, description = "It was there already, just so"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    Body(request, _permit): Body<IdentityRequest>,
) -> Created<IdentityView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let mut core = agent.core.lock().await;
    let new = core.change(&caller.caller, |state, context, policy| {
        create_identity(state, context, policy, &caller.tenant, request)
    })?;
    let found = core.state.identities.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Identity, &reference))?;
    Ok(created(new, view::identity(&reference, record)))
}

/// Show an identity.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/identities/{name}", operation_id = "show_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = IdentityView, description = "The identity"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<IdentityView> {
    let reference = reference_in_path(Kind::Identity, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    let found = core.state.identities.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Identity, &reference))?;
    Ok(Json(view::identity(&reference, record)))
}

/// Remove an identity: those who were meant act for the tenant no more.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/identities/{name}", operation_id = "delete_identity", tag = "identity",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Identity, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| {
        delete_identity(state, &reference)
    })?;
    Ok(StatusCode::NO_CONTENT)
}
