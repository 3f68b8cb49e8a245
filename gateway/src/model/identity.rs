//! Identities: who, of those that another system knows, acts for a tenant. That is how consumers and
//! providers can live in different identity systems.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, access::Role, record::Labels, schema};

/// The issuer of those who come with a certificate.
pub const CERTIFICATE: &str = "certificate";

/// What of a certificate can be named.
pub const CERTIFICATE_CLAIMS: [&str; 5] = ["common_name", "dns", "email", "uri", "sha256"];

/// Something that another system says of somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Who says so: an OpenID Connect issuer's URL, or [`CERTIFICATE`].
    pub issuer: String,
    /// What it is about: a token's claim, or one of [`CERTIFICATE_CLAIMS`].
    pub claim: String,
    /// What it says.
    pub value: String,
}

impl Claim {
    /// Refuses texts that are empty, too long, or hold control characters.
    ///
    /// # Errors
    /// [`Code::Invalid`](crate::model::Code::Invalid), for the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        for (field, text, most) in [
            ("issuer", &self.issuer, 2_000),
            ("claim", &self.claim, 100),
            ("value", &self.value, 500),
        ] {
            if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
                return Err(Problem::invalid(
                    field,
                    format!("{field} has 1 to {most} bytes and no control characters"),
                ));
            }
        }
        Ok(())
    }
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who is meant.
    #[serde(flatten)]
    pub claim: Claim,
    /// What they are within the tenant.
    pub role: Role,
}

/// What a user says of an identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRequest {
    /// The identity's name.
    pub name: Name,
    /// Who says so: an OpenID Connect issuer's URL, or `certificate`.
    pub issuer: String,
    /// What it is about: a claim of the issuer's tokens (`sub`, `groups`, ...); for certificates one of
    /// `common_name`, `dns`, `email`, `uri` and `sha256`.
    #[serde(default = "subject")]
    #[schema(default = "sub")]
    pub claim: String,
    /// What it must say. A claim that is a list must hold it.
    pub value: String,
    /// What they are within the tenant.
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
    /// Who is meant, if that is somebody whom the gateway can recognise.
    pub(crate) fn claim(&self, issuers: &[String]) -> Result<Claim, Problem> {
        let is_certificate = self.issuer == CERTIFICATE;
        if !is_certificate && !issuers.contains(&self.issuer) {
            let known = match issuers {
                [] => "none is configured".to_owned(),
                known => known.join(", "),
            };
            let shown: String = self.issuer.chars().take(200).collect();
            return Err(Problem::invalid(
                "issuer",
                format!("{shown:?} is not an issuer that the gateway trusts ({known})"),
            ));
        }
        if is_certificate && !CERTIFICATE_CLAIMS.contains(&&*self.claim) {
            return Err(Problem::invalid(
                "claim",
                format!(
                    "a certificate is recognised by one of {}",
                    CERTIFICATE_CLAIMS.join(", ")
                ),
            ));
        }
        let claim = Claim {
            issuer: self.issuer.clone(),
            claim: self.claim.clone(),
            value: self.value.clone(),
        };
        claim.check()?;
        Ok(claim)
    }
}
