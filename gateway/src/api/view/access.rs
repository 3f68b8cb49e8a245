//! Tokens, identities and webhooks as users see them: without their secrets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::controller::Controller,
    model::{
        Identity, Meta, Name, Record, Reference, Role, Token, Webhook, identity::Authority,
        webhook::WebhookStatus,
    },
};

/// A token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Identity and history.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// What its bearer is within the tenant.
    pub role: Role,
    /// When it stops being valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// A token that was just made, with its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewTokenView {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// The secret, which is not shown again.
    pub secret: String,
}

/// Shows a token.
#[must_use]
pub fn token(reference: &Reference, record: &Record<Token>) -> TokenView {
    TokenView {
        meta: record.meta.clone(),
        tenant: reference.tenant.clone(),
        role: record.object.role,
        expires_at: record.object.expires_at,
    }
}

/// Shows a new token.
#[must_use]
pub fn new_token(reference: &Reference, record: &Record<Token>, secret: String) -> NewTokenView {
    NewTokenView {
        token: token(reference, record),
        secret,
    }
}

/// An identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IdentityView {
    /// Identity and history.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// Who says so: an issuer's URL, or `certificate`.
    pub issuer: String,
    /// What it is about.
    pub claim: String,
    /// What it says.
    pub value: String,
    /// For certificates, the authority that must have issued them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// What they are within the tenant.
    pub role: Role,
}

/// Shows an identity.
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

/// A webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// Identity and history.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// Where events are sent.
    pub url: String,
    /// How that goes.
    pub status: WebhookStatus,
}

/// A webhook that was just made, with its key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewWebhookView {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// The key of the signatures, which is not shown again.
    pub secret: String,
}

/// Shows a webhook.
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

/// Shows a new webhook.
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
