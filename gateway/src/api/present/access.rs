//! Views of tokens, identities and webhooks.

use crate::{
    agent::controller::Controller,
    api::types::{IdentityView, NewTokenView, NewWebhookView, TokenView, WebhookView},
    model::{Identity, Record, Reference, Token, Webhook},
};

/// Returns the view of a token.
#[must_use]
pub fn token(reference: &Reference, record: &Record<Token>) -> TokenView {
    TokenView {
        meta: record.meta.clone(),
        tenant: reference.tenant.clone(),
        role: record.object.role,
        expires_at: record.object.expires_at,
    }
}

/// Returns the view of a new token.
#[must_use]
pub fn new_token(reference: &Reference, record: &Record<Token>, secret: String) -> NewTokenView {
    NewTokenView {
        token: token(reference, record),
        secret,
    }
}

/// Returns the view of an identity.
#[must_use]
pub fn identity(reference: &Reference, record: &Record<Identity>) -> IdentityView {
    let Identity { claim, role } = record.object.clone();
    IdentityView {
        meta: record.meta.clone(),
        tenant: reference.tenant.clone(),
        issuer: claim.issuer,
        claim: claim.claim,
        value: claim.value,
        authority: claim.authority,
        role,
    }
}

/// Returns the view of a webhook.
#[must_use]
pub fn webhook(
    controller: &Controller,
    reference: &Reference,
    record: &Record<Webhook>,
) -> WebhookView {
    WebhookView {
        meta: record.meta.clone(),
        tenant: reference.tenant.clone(),
        url: record.object.url.clone(),
        status: controller.webhook_status(reference, record),
    }
}

/// Returns the view of a new webhook.
#[must_use]
pub fn new_webhook(
    controller: &Controller,
    reference: &Reference,
    record: &Record<Webhook>,
    secret: String,
) -> NewWebhookView {
    NewWebhookView {
        webhook: webhook(controller, reference, record),
        secret,
    }
}
