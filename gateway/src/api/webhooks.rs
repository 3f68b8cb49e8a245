//! Webhooks: where a tenant wants to be told of events.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        Shared,
        caller::{Access, In, Read},
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, Created, LookProblems, Refusal, created},
        view::{self, NewWebhookView, WebhookView},
    },
    model::{
        Identifiers as _, Kind, Name, Problem, RandomIdentifiers, Reference, State,
        operations::{create_webhook, delete_webhook},
        webhook::{self, WebhookRequest},
    },
};

/// List a tenant's webhooks.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/webhooks", operation_id = "list_webhooks", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner"), PageRequest),
    responses((status = 200, body = Page<WebhookView>, description = "The webhooks, by name"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<WebhookView>> {
    let core = agent.core.lock().await;
    if !core.state.tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.of(
        State::owned(&core.state.webhooks, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::webhook(&core, reference, record)),
    )?;
    Ok(Json(page))
}

/// Create a webhook. The key of its signatures is shown in this answer only.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks", operation_id = "create_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = WebhookRequest,
    responses(
        (status = 201, body = NewWebhookView, description = "It was created"),
        ChangeProblems,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    Body(request, _permit): Body<WebhookRequest>,
) -> Created<NewWebhookView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let secret = webhook::new_secret(RandomIdentifiers.secret());
    let mut core = agent.core.lock().await;
    let since = core.no_event_yet();
    let new = core.change(&caller.caller, |state, context, _| {
        create_webhook(
            state,
            context,
            &caller.tenant,
            request,
            secret.clone(),
            since,
        )
    })?;
    let found = core.state.webhooks.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Webhook, &reference))?;
    Ok(created(
        new,
        view::new_webhook(&core, &reference, record, secret),
    ))
}

/// Show a webhook.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/webhooks/{name}", operation_id = "show_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = WebhookView, description = "The webhook"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
) -> Answer<WebhookView> {
    let reference = reference_in_path(Kind::Webhook, caller.tenant.clone(), &path.1)?;
    let core = agent.core.lock().await;
    let found = core.state.webhooks.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Webhook, &reference))?;
    Ok(Json(view::webhook(&core, &reference, record)))
}

/// Delete a webhook.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/webhooks/{name}", operation_id = "delete_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), ChangeProblems),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<Shared>,
    caller: In<Access>,
    PathParts(path): PathParts<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let reference = reference_in_path(Kind::Webhook, caller.tenant.clone(), &path.1)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, _, _| {
        delete_webhook(state, &reference)
    })?;
    Ok(StatusCode::NO_CONTENT)
}
