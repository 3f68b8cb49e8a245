//! Services.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    agent::core::Core,
    api::{
        Shared,
        caller::{In, Read, Services},
        page::{Page, PageRequest},
        request::{Body, Creation, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
        view::{self, ServiceView},
    },
    model::{
        Kind, Name, Problem, Reference, State,
        operations::{create_service, delete_service, update_service},
        service::ServiceRequest,
    },
};

/// How a service is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeleteService {
    /// Even though connections are approved: they are cut.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
}

fn view_of(core: &Core, reference: &Reference) -> Result<ServiceView, Refusal> {
    let found = core.state.services.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Service, reference))?;
    Ok(view::service(core, reference, record))
}

/// List a tenant's services.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services", operation_id = "list_services", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<ServiceView>, description = "The services, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<ServiceView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.services, &caller.tenant).map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| view_of(&core, reference),
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
        (status = 201, body = ServiceView, description = "It was created"),
        (status = 200, body = ServiceView, description = "It was there already, just so"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Services>,
    mut creation: Creation<ServiceRequest>,
) -> Created<ServiceView> {
    let attempt = creation.attempt();
    let request = creation.request;
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    let new = core.change_once(&caller.caller, attempt, |state, context, policy| {
        create_service(state, context, policy, &caller.tenant, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.look().await?;
    let core = agent.core.lock().await;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    Ok(created(new, view_of(&core, reference)?))
}

/// Show a service.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "show_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = ServiceView, description = "The service"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<ServiceView> {
    let reference = &reference_in_path(Kind::Service, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, reference)?))
}

/// Change a service.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "update_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = ServiceRequest,
    responses((status = 200, body = ServiceView, description = "The service as it is now"), ChangeProblems),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    caller: In<Services>,
    PathParts(path): PathParts<(String, String)>,
    Body(request, _permit): Body<ServiceRequest>,
) -> Answer<ServiceView> {
    let reference = &reference_in_path(Kind::Service, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        update_service(state, context, reference, request)
    })?;
    drop(core);
    // The host has to be looked at before what was asked for can be in force.
    agent.look().await?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(&core, reference)?))
}

/// Delete a service; its connections are Disconnected.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/services/{name}", operation_id = "delete_service", tag = "service",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name"), DeleteService),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Services>,
    PathParts(path): PathParts<(String, String)>,
    Parameters(options): Parameters<DeleteService>,
) -> Result<StatusCode, Refusal> {
    let reference = &reference_in_path(Kind::Service, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        delete_service(state, context, reference, options.force)
    })?;
    drop(core);
    agent.look().await?;
    Ok(StatusCode::NO_CONTENT)
}
