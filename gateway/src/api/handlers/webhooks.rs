//! Webhooks: HTTPS URLs to which a tenant's events are delivered.

use std::collections::BTreeMap;

use axum::extract::State as AgentState;

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        authorize::{Authorized, ManageCredentials},
        handlers::crud::{self, TenantObject, crud},
        present,
        request::JsonBody,
        response::{CreateResult, WriteErrors, create_response},
        types::{NewWebhookView, WebhookView},
    },
    model::{
        Change, Identifiers as _, Kind, Name, OpContext, Principal, Problem, RandomIdentifiers,
        Record, Reference, State, Webhook,
        operations::{create_webhook, delete_webhook},
        webhook::{self, WebhookRequest},
    },
};

crud! {
    Webhook: WebhookRequest => WebhookView, ManageCredentials, "webhook", "webhooks",
    "/v1/tenants/{tenant}/webhooks", "/v1/tenants/{tenant}/webhooks/{name}";
    list "List a tenant's webhooks.";
    show "Show a webhook.";
    delete "Delete a webhook.";
}

/// Create a webhook. Only this response shows the key of its signatures.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks", operation_id = "create_webhook", tag = "webhook",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = WebhookRequest,
    responses((status = 201, body = NewWebhookView, description = "The webhook was created"), WriteErrors),
)]
pub(in crate::api) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    JsonBody(request, _permit): JsonBody<WebhookRequest>,
) -> CreateResult<NewWebhookView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let secret = webhook::new_secret(RandomIdentifiers.secret());
    agent
        .change_and_present(
            &caller.caller,
            None,
            |state, context, _| {
                create_webhook(state, context, &caller.tenant, request, secret.clone())
            },
            |controller, created| {
                let record = crud::record(controller.state(), &reference)?;
                let view = present::new_webhook(controller, &reference, record, secret.clone());
                Ok(create_response(created, view))
            },
        )
        .await
}

impl TenantObject for Webhook {
    const KIND: Kind = Kind::Webhook;
    type Request = WebhookRequest;
    type View = WebhookView;
    type DeleteOptions = ();

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.webhooks
    }

    fn present(
        controller: &Controller,
        _: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<WebhookView> {
        Ok(present::webhook(controller, reference, record))
    }

    fn delete(
        state: &State,
        _: &mut OpContext<'_>,
        reference: &Reference,
        (): (),
    ) -> Result<Vec<Change>, Problem> {
        delete_webhook(state, reference)
    }
}
