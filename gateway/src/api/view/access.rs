//! Tokens, identities and webhooks as the API shows them: without their secrets.

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
    /// Identity, version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// Role of the token in the tenant.
    pub role: Role,
    /// Time at which the token expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// A new token with its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewTokenView {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// The secret, which no other response shows.
    pub secret: String,
}

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

/// An identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IdentityView {
    /// Identity, version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// URL of the OpenID Connect issuer, or `certificate`.
    pub issuer: String,
    /// Name of the claim.
    pub claim: String,
    /// Value of the claim.
    pub value: String,
    /// Certificate authority that must have issued the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// Role of the identity in the tenant.
    pub role: Role,
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

/// A webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// Identity, version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// The owner.
    pub tenant: Name,
    /// URL to which events are delivered.
    pub url: String,
    /// Status of the deliveries.
    pub status: WebhookStatus,
}

/// A new webhook with the key of its signatures.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewWebhookView {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// The key of the signatures, which no other response shows.
    pub secret: String,
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
