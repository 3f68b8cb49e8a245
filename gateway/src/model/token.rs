//! API tokens of tenants. Only the hash of a token is stored.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, record::Labels, role::Role, schema};

/// Prefix of every token's text, by which secret scanners recognise a leaked token.
pub const PREFIX: &str = "gwt_";

/// Stored token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Role of the bearer in the tenant.
    pub role: Role,
    /// Time at which the token expires; none if it is valid until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Hash of the token's text.
    pub hash: TokenHash,
}

impl Token {
    /// Returns true if the token has not expired.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// SHA-256 of a token's text. The text has 256 random bits, so a slow hash would add no security. The time of a look-up
/// by hash reveals nothing about the texts of other tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenHash(String);

impl TokenHash {
    /// Hashes a token's text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes())))
    }

    /// Returns the hash in unpadded base64url (RFC 4648, section 5).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if a stored hash has the form that [`Self::from_text`] creates.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        URL_SAFE_NO_PAD
            .decode(&self.0)
            .is_ok_and(|bytes| bytes.len() == 32)
    }
}

/// Returns the text of a token with this secret.
#[must_use]
pub fn token_text(secret: [u8; 32]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret))
}

/// Request to create a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of the token.
    pub name: Name,
    /// Role of the bearer in the tenant.
    pub role: Role,
    /// Time at which the token expires. Unset: the token is valid until it is revoked.
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
    fn hash_is_sha_256() {
        // RFC 6234's test vector for "abc".
        assert_eq!(
            TokenHash::from_text("abc").0,
            "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
        );
        assert_eq!(token_text([0; 32]).len(), PREFIX.len() + 43);
    }
}
