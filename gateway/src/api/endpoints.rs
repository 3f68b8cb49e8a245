//! Endpoints.

use std::net::IpAddr;

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    agent::core::Core,
    api::{
        Shared,
        caller::{Endpoints, In, Read},
        page::{Page, PageRequest},
        request::{Body, Creation, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
        view::{self, CounterDetail, EndpointView},
    },
    model::{
        Kind, Name, Principal, Problem, Reference, State,
        endpoint::EndpointRequest,
        operations::{create_endpoint, delete_endpoint, update_endpoint},
    },
};

fn view_of(
    core: &Core,
    caller: &Principal,
    reference: &Reference,
    detail: CounterDetail,
) -> Result<EndpointView, Refusal> {
    let found = core.state.endpoints.get(reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
    Ok(view::endpoint(core, caller, reference, record, detail)?)
}

/// List a tenant's endpoints.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints", operation_id = "list_endpoints", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<EndpointView>, description = "The endpoints, by name, without the drops of each reason"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<EndpointView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.endpoints, &caller.tenant).map(|(reference, _)| reference),
        |reference| reference.name.clone(),
        |reference| view_of(&core, &caller.caller, reference, CounterDetail::Totals),
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
        (status = 201, body = EndpointView, description = "It was created"),
        (status = 200, body = EndpointView, description = "It was there already, just so"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Endpoints>,
    mut creation: Creation<EndpointRequest>,
) -> Created<EndpointView> {
    let attempt = creation.attempt();
    let request = creation.request;
    let name = request.name.clone();
    let mut core = agent.core.lock().await;
    let new = core.change_once(&caller.caller, attempt, |state, context, policy| {
        create_endpoint(state, context, policy, &caller.tenant, request)
    })?;
    let name = name.ok_or_else(|| Problem::invalid("name", "a name is needed"))?;
    let reference = &Reference::new(caller.tenant.clone(), name);
    let created_now = core.state.endpoints.get(reference);
    let ipv6 = created_now.is_some_and(|new| new.object.addresses.iter().any(IpAddr::is_ipv6));
    drop(core);
    if new && ipv6 {
        // Its network's interfaces must receive what is for the address's group.
        agent.look().await?;
    }
    let core = agent.core.lock().await;
    Ok(created(
        new,
        view_of(&core, &caller.caller, reference, CounterDetail::Drops)?,
    ))
}

/// Show an endpoint.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "show_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = EndpointView, description = "The endpoint"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<EndpointView> {
    let reference = &reference_in_path(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    Ok(Json(view_of(
        &core,
        &caller.caller,
        reference,
        CounterDetail::Drops,
    )?))
}

/// Change an endpoint's labels: what it is bound to never changes.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "update_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    request_body = EndpointRequest,
    responses((status = 200, body = EndpointView, description = "The endpoint as it is now"), ChangeProblems),
)]
pub(super) async fn update(
    AgentState(agent): AgentState<Shared>,
    caller: In<Endpoints>,
    PathParts(path): PathParts<(String, String)>,
    Body(request, _permit): Body<EndpointRequest>,
) -> Answer<EndpointView> {
    let reference = &reference_in_path(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        update_endpoint(state, context, reference, request)
    })?;
    Ok(Json(view_of(
        &core,
        &caller.caller,
        reference,
        CounterDetail::Drops,
    )?))
}

/// Delete an endpoint; its connection is gone from both sides.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/endpoints/{name}", operation_id = "delete_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Endpoints>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = &reference_in_path(Kind::Endpoint, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| {
        delete_endpoint(state, reference)
    })?;
    Ok(StatusCode::NO_CONTENT)
}
