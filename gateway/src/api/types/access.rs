//! Tokens, identities and webhooks, without their secrets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Meta, Name, Role, identity::Authority, webhook::WebhookStatus};

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
