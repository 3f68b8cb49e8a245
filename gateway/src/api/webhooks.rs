//! Webhooks: HTTPS URLs to which a tenant's events are delivered.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::{
    api::{
        AppState,
        caller::{Authorized, ManageCredentials, Read},
        page::{Page, PageRequest},
        request::{JsonBody, PathParameters, QueryParameters, parse_path_reference},
        response::{ApiError, ApiResult, CreateResult, ReadErrors, WriteErrors, create_response},
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
    responses((status = 200, body = Page<WebhookView>, description = "The webhooks, by name"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<WebhookView>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let page = page.paginate(
        State::owned_by(&controller.state().webhooks, &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| Ok(view::webhook(&controller, reference, record)),
    )?;
    Ok(Json(page))
}

/// Create a webhook. Only this response shows the key of its signatures.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks", operation_id = "create_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = WebhookRequest,
    responses(
        (status = 201, body = NewWebhookView, description = "The webhook was created"),
        WriteErrors,
    ),
)]
pub(super) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    JsonBody(request, _permit): JsonBody<WebhookRequest>,
) -> CreateResult<NewWebhookView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let secret = webhook::new_secret(RandomIdentifiers.secret());
    let since = agent.controller.lock().await.event_boundary();
    let change = agent.change(&caller.caller, |state, context, _| {
        create_webhook(
            state,
            context,
            &caller.tenant,
            request,
            secret.clone(),
            since,
        )
    });
    let new = change.await?;
    let controller = agent.controller.lock().await;
    let found = controller.state().webhooks.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Webhook, &reference))?;
    Ok(create_response(
        new,
        view::new_webhook(&controller, &reference, record, secret),
    ))
}

/// Show a webhook.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/webhooks/{name}", operation_id = "show_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 200, body = WebhookView, description = "The webhook"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
) -> ApiResult<WebhookView> {
    let reference = parse_path_reference(Kind::Webhook, caller.tenant.clone(), &path.1)?;
    let controller = agent.controller.lock().await;
    let found = controller.state().webhooks.get(&reference);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Webhook, &reference))?;
    Ok(Json(view::webhook(&controller, &reference, record)))
}

/// Delete a webhook.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/webhooks/{name}", operation_id = "delete_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Its name")),
    responses((status = 204, description = "The webhook was deleted"), WriteErrors),
)]
pub(super) async fn delete(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    PathParameters(path): PathParameters<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let reference = parse_path_reference(Kind::Webhook, caller.tenant.clone(), &path.1)?;
    let change = agent.change(&caller.caller, |state, _, _| {
        delete_webhook(state, &reference)
    });
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}
