//! Identities: mappings of OIDC claims and client certificates to roles in a tenant. Consumers and providers can
//! therefore use different identity systems.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, record::Labels, role::Role, schema, text};

/// Issuer of claims that are read from client certificates.
pub const CERTIFICATE: &str = "certificate";

/// Claims that are read from client certificates.
pub const CERTIFICATE_CLAIMS: [&str; 5] = ["common_name", "dns", "email", "uri", "sha256"];

/// Certificate authority, identified by the name and the key of a trust anchor (RFC 5280, section 6.1.1). A renewed
/// certificate of the same name and key is the same authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// Subject of the authority's certificate.
    #[schema(max_length = 500)]
    pub subject: String,
    /// SHA-256 of the authority's SubjectPublicKeyInfo (RFC 5280, section 4.1), as 64 lower-case hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub key_sha256: String,
}

impl Authority {
    /// Refuses a malformed authority.
    fn check(&self) -> Result<(), Problem> {
        let is_hash = self.key_sha256.len() == 64
            && self
                .key_sha256
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hash && self.subject.len() <= 2_000 && !self.subject.chars().any(char::is_control) {
            return Ok(());
        }
        Err(Problem::invalid(
            "authority",
            "an authority has a subject without control characters, and a key_sha256 of 64 lower-case \
             hexadecimal digits",
        ))
    }
}

/// Reference in a request to a certificate authority that the gateway accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRequest {
    /// Subject of the authority's certificate. Needed only if several authorities have the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub subject: Option<String>,
    /// SHA-256 of the authority's SubjectPublicKeyInfo, as 64 lower-case hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub key_sha256: String,
}

impl From<Authority> for AuthorityRequest {
    fn from(authority: Authority) -> Self {
        Self {
            subject: Some(authority.subject),
            key_sha256: authority.key_sha256,
        }
    }
}

impl AuthorityRequest {
    /// Returns the accepted authority with the key and, if given, the subject.
    fn resolve(&self, accepted: &[Authority]) -> Result<Authority, Problem> {
        let mut matching = accepted.iter().filter(|authority| {
            authority.key_sha256 == self.key_sha256
                && self
                    .subject
                    .as_ref()
                    .is_none_or(|subject| *subject == authority.subject)
        });
        match (matching.next(), matching.next()) {
            (Some(authority), None) => Ok(authority.clone()),
            (Some(_), Some(_)) => Err(Problem::invalid(
                "authority",
                "several authorities have this key: name the subject too",
            )),
            (None, _) => Err(Problem::invalid(
                "authority",
                "the gateway accepts no certificates of this authority: check key and subject, or ask \
                 its operator to add the authority to tls_client_ca",
            )),
        }
    }
}

/// Claim that is the SHA-256 of the certificate itself. No other certificate matches it, whichever authority issues it.
pub const PINNING_CLAIM: &str = "sha256";

/// Claim of an issuer about a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// URL of an OpenID Connect issuer, or [`CERTIFICATE`].
    pub issuer: String,
    /// Name of a token's claim, or one of [`CERTIFICATE_CLAIMS`].
    pub claim: String,
    /// Value of the claim.
    pub value: String,
    /// Authority that issued the certificate; none if the claim pins the certificate itself (`sha256`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

impl Claim {
    /// Refuses texts that are empty, too long, or have control characters.
    ///
    /// # Errors
    /// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        for (field, text, max) in [
            ("issuer", &self.issuer, 2_000),
            ("claim", &self.claim, 100),
            ("value", &self.value, 500),
        ] {
            if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
                return Err(Problem::invalid(
                    field,
                    format!("{field} has 1 to {max} bytes and no control characters"),
                ));
            }
        }
        self.authority.as_ref().map_or(Ok(()), Authority::check)
    }
}

/// Stored identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Claim that a caller must have.
    #[serde(flatten)]
    pub claim: Claim,
    /// Role of such a caller in the tenant.
    pub role: Role,
}

/// Request to create an identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRequest {
    /// Name of the identity.
    pub name: Name,
    /// URL of an OpenID Connect issuer, or `certificate`.
    #[schema(max_length = 2000)]
    pub issuer: String,
    /// Name of a claim of the issuer's tokens (`sub`, `groups`, ...); for certificates one of `common_name`, `dns`,
    /// `email`, `uri` and `sha256`.
    #[serde(default = "subject")]
    #[schema(default = "sub", max_length = 100)]
    pub claim: String,
    /// Value that the claim must have, or contain if it is a list.
    #[schema(max_length = 500)]
    pub value: String,
    /// Authority that must have issued the certificate, for the issuer `certificate`. Required unless the claim is
    /// `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityRequest>,
    /// Role of such a caller in the tenant.
    pub role: Role,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
}

fn subject() -> String {
    "sub".to_owned()
}

impl IdentityRequest {
    /// Returns the requested claim, if the gateway trusts its issuer.
    pub(crate) fn claim(
        &self,
        issuers: &[String],
        authorities: &[Authority],
    ) -> Result<Claim, Problem> {
        let is_certificate = self.issuer == CERTIFICATE;
        if !is_certificate && !issuers.contains(&self.issuer) {
            let known = match issuers {
                [] => "none is configured".to_owned(),
                known => known.join(", "),
            };
            let shown = text::truncated(&self.issuer, 200);
            return Err(Problem::invalid(
                "issuer",
                format!("{shown:?} is not an issuer that the gateway trusts ({known})"),
            ));
        }
        if is_certificate && !CERTIFICATE_CLAIMS.contains(&&*self.claim) {
            return Err(Problem::invalid(
                "claim",
                format!(
                    "a certificate has no such claim: use one of {}",
                    CERTIFICATE_CLAIMS.join(", ")
                ),
            ));
        }
        text::check("claim", &self.claim, 100)?;
        text::check("value", &self.value, 500)?;
        let authority = match &self.authority {
            Some(_) if !is_certificate => {
                let detail = "only certificates have an authority: leave it out, or use `certificate` as the issuer";
                return Err(Problem::invalid("authority", detail));
            }
            Some(authority) => Some(authority.resolve(authorities)?),
            None if is_certificate && self.claim != PINNING_CLAIM => {
                return Err(Problem::invalid(
                    "authority",
                    "any accepted authority could issue such a certificate: name the authority that must have \
                     issued it",
                ));
            }
            None => None,
        };
        let claim = Claim {
            issuer: self.issuer.clone(),
            claim: self.claim.clone(),
            value: self.value.clone(),
            authority,
        };
        claim.check()?;
        Ok(claim)
    }
}

impl Identity {
    /// Returns true if no credential can match the identity. Identities of earlier versions have no authority and
    /// matched certificates of any accepted authority, so that one tenant's authority could issue certificates for
    /// another tenant's users. They no longer match.
    #[must_use]
    pub fn lacks_authority(&self) -> bool {
        self.claim.issuer == CERTIFICATE
            && self.claim.claim != PINNING_CLAIM
            && self.claim.authority.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(subject: &str, digit: &str) -> Authority {
        Authority {
            subject: subject.to_owned(),
            key_sha256: digit.repeat(64),
        }
    }

    fn claim(json: serde_json::Value, accepted: &[Authority]) -> Result<Claim, Problem> {
        let mut request = serde_json::json!({
            "name": "x", "issuer": CERTIFICATE, "claim": "dns", "value": "x", "role": "viewer",
        });
        let map = request.as_object_mut().unwrap();
        map.extend(json.as_object().unwrap().clone());
        let request: IdentityRequest = serde_json::from_value(request).unwrap();
        request.claim(&["https://idp".to_owned()], accepted)
    }

    #[test]
    fn certificate_claims_need_an_authority_or_a_pin() {
        let accepted = [authority("CN=one", "1"), authority("CN=two", "2")];
        let one = serde_json::json!({ "authority": { "key_sha256": "1".repeat(64) } });
        let found = claim(one.clone(), &accepted).unwrap();
        assert_eq!(found.authority, Some(accepted[0].clone()));
        assert!(claim(serde_json::json!({}), &accepted).is_err());
        assert!(claim(one.clone(), &accepted[1..]).is_err());
        assert!(claim(one.clone(), &[]).is_err());
        let pinned = serde_json::json!({ "claim": "sha256" });
        assert_eq!(claim(pinned, &[]).unwrap().authority, None);
        let foreign = serde_json::json!({
            "issuer": "https://idp", "authority": { "key_sha256": "1".repeat(64) },
        });
        assert!(claim(foreign, &accepted).is_err());
        // One key under two names.
        let twins = [authority("CN=one", "1"), authority("CN=uno", "1")];
        assert!(claim(one, &twins).is_err());
        let named = serde_json::json!({
            "authority": { "key_sha256": "1".repeat(64), "subject": "CN=uno" },
        });
        assert_eq!(
            claim(named, &twins).unwrap().authority,
            Some(twins[1].clone())
        );
    }

    #[test]
    fn an_identity_without_an_authority_matches_no_certificate() {
        let identity = |issuer: &str, claim: &str, authority: Option<Authority>| Identity {
            claim: Claim {
                issuer: issuer.to_owned(),
                claim: claim.to_owned(),
                value: "x".to_owned(),
                authority,
            },
            role: Role::Viewer,
        };
        assert!(identity(CERTIFICATE, "dns", None).lacks_authority());
        assert!(!identity(CERTIFICATE, "sha256", None).lacks_authority());
        assert!(!identity(CERTIFICATE, "dns", Some(authority("CN=one", "1"))).lacks_authority());
        assert!(!identity("https://idp", "dns", None).lacks_authority());
    }
}
