//! Tokens: secrets by which programs and people act for a tenant. Only a secret's hash is kept.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, access::Role, record::Labels, schema};

/// What every token's text begins with, so that one that got where it should not be is recognised.
pub const PREFIX: &str = "gwt_";

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What its bearer is within the tenant.
    pub role: Role,
    /// When it stops being valid; none: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What it is recognised by.
    pub hash: TokenHash,
}

impl Token {
    /// Whether it still counts.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// The SHA-256 of a token's text. The secret in it is 256 random bits, so a slow hash would add nothing,
/// and looking one up by its hash tells nothing about others by the time that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token's text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes())))
    }

    /// Returns the hash in unpadded base64url (RFC 4648, section 5).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a stored hash is one that [`Self::of`] makes.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        URL_SAFE_NO_PAD
            .decode(&self.0)
            .is_ok_and(|bytes| bytes.len() == 32)
    }
}

/// The text of a token with this secret.
#[must_use]
pub fn token_text(secret: [u8; 32]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret))
}

/// What a user says of a new token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The token's name.
    pub name: Name,
    /// What its bearer is within the tenant.
    pub role: Role,
    /// When it stops being valid; unset: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sha_256() {
        // RFC 6234's test vector for "abc".
        assert_eq!(
            TokenHash::from_text("abc").0,
            "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
        );
        assert_eq!(token_text([0; 32]).len(), PREFIX.len() + 43);
    }
}
