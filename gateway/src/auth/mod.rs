//! Authentication: maps the credential of a request to a [`Principal`].

pub mod authorities;
pub mod certificate;
pub mod display;
pub mod oidc;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    auth::certificate::ClientCertificate,
    model::{
        Access, Name, Principal, Role, State, access,
        identity::Claim,
        token::{self, TokenHash},
    },
};

/// Verified credential of a request.
///
/// Roles are not part of it: [`Self::principal`] looks them up on every use. A revocation therefore takes effect on
/// open event streams too.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The control socket, which only the operator can open.
    Operator {
        /// User id of the peer process.
        uid: Option<u32>,
    },
    /// A token of a tenant.
    Token(TokenHash),
    /// A token (JWT) of an OpenID Connect issuer.
    Claims {
        /// Stable name of the principal: issuer and subject.
        identity: String,
        /// Name for people, which begins with the identity.
        name: String,
        /// Claims of the token.
        claims: Vec<Claim>,
        /// Expiry of the token.
        expires_at: Timestamp,
    },
    /// A client certificate.
    Certificate(Arc<ClientCertificate>),
}

/// Unverified bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// A token that the gateway issued.
    Token(&'a str),
    /// A JWT of another issuer.
    Jwt(&'a str),
}

impl<'a> Bearer<'a> {
    /// Parses the value of an `Authorization` header (RFC 6750, section 2.1).
    #[must_use]
    pub fn from_header(header: &'a str) -> Option<Self> {
        let (scheme, text) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let text = text.trim();
        Some(if text.starts_with(token::PREFIX) {
            Self::Token(text)
        } else {
            Self::Jwt(text)
        })
    }
}

impl Credential {
    /// Returns the expiry of the credential, if it has one.
    #[must_use]
    pub fn expiry(&self, state: &State) -> Option<Timestamp> {
        match self {
            Self::Operator { .. } => None,
            Self::Token(hash) => state.token_by_hash(hash)?.1.object.expires_at,
            Self::Certificate(certificate) => Some(certificate.expiry()),
            Self::Claims {
                expires_at: until, ..
            } => Some(*until),
        }
    }

    /// Verifies a certificate's chain and caches the outcome for [`Self::principal`]. Verification is slow and needs no
    /// state, so call this before the state is locked.
    pub fn verify_in_advance(&self, now: Timestamp) {
        if let Self::Certificate(certificate) = self {
            let _remembered = certificate.claims(now);
        }
    }

    /// Returns the principal with its present roles; `None` if the credential is unknown, has expired or was revoked.
    #[must_use]
    pub fn principal(&self, state: &State, now: Timestamp, from: &str) -> Option<Principal> {
        let (identity, name, access) = match self {
            Self::Operator { uid } => {
                let (identity, name) = match uid {
                    Some(uid) => (
                        format!("operator uid {uid}"),
                        access::operator_name(Some(*uid)),
                    ),
                    None => ("operator".to_owned(), access::operator_name(None)),
                };
                (identity, name, Access::Operator)
            }
            Self::Token(hash) => {
                let (reference, record) = state.token_by_hash(hash)?;
                if !record.object.is_valid(now) {
                    return None;
                }
                let roles = [(reference.tenant.clone(), record.object.role)].into();
                // By uid: a token that is deleted and created again with the same name is another principal.
                let uid = record.meta.uid;
                let name = format!("token {reference} (uid {uid})");
                (format!("token {uid}"), name, Access::Tenants(roles))
            }
            Self::Claims {
                identity,
                name,
                claims,
                expires_at: until,
            } => {
                if *until <= now {
                    return None;
                }
                let access = Access::Tenants(roles(state, claims));
                (identity.clone(), name.clone(), access)
            }
            Self::Certificate(certificate) => {
                let access = Access::Tenants(roles(state, &certificate.claims(now)?));
                (certificate.identity(), certificate.name(), access)
            }
        };
        Some(Principal {
            identity,
            name,
            from: from.to_owned(),
            access,
        })
    }
}

/// Returns the roles of a principal with the claims: the union over all identities that match one of them.
fn roles(state: &State, claims: &[Claim]) -> BTreeMap<Name, Role> {
    let mut roles: BTreeMap<Name, Role> = BTreeMap::new();
    for claim in claims {
        for (reference, record) in state.identities_by_claim(claim) {
            let role = record.object.role;
            roles
                .entry(reference.tenant.clone())
                .and_modify(|has| *has = has.union(role))
                .or_insert(role);
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Object, identity::CERTIFICATE};

    fn state() -> State {
        let meta = |name: &str, more: serde_json::Value| {
            let mut value = json!({
                "name": name, "uid": "00000000-0000-4000-8000-000000000000",
                "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            });
            let map = value.as_object_mut().unwrap();
            map.extend(more.as_object().unwrap().clone());
            value.to_string()
        };
        let identity = |role: &str| json!({ "issuer": "https://idp", "claim": "groups", "value": "ops", "role": role });
        let objects = [
            (
                "tokens/a/t",
                meta(
                    "t",
                    json!({ "role": "viewer", "expires_at": "2026-06-01T00:00:00Z", "hash": TokenHash::from_text("gwt_x") }),
                ),
            ),
            ("identities/a/ops", meta("ops", identity("consumer"))),
            ("identities/a/ops2", meta("ops2", identity("provider"))),
            ("identities/b/ops", meta("ops", identity("viewer"))),
            (
                "identities/b/cert",
                meta(
                    "cert",
                    json!({ "issuer": CERTIFICATE, "claim": "dns", "value": "x", "role": "admin" }),
                ),
            ),
        ];
        State::new(
            objects
                .iter()
                .map(|(key, value)| Object::decode(key, value, 1).unwrap()),
            crate::model::VersionKey::default(),
        )
    }

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let state = state();
        let at = |time: &str, text: &str| {
            let credential = Credential::Token(TokenHash::from_text(text));
            credential.principal(&state, time.parse().unwrap(), "192.0.2.1")
        };
        let principal = at("2026-05-31T23:59:59Z", "gwt_x").unwrap();
        let uid = "00000000-0000-4000-8000-000000000000";
        assert_eq!(principal.name, format!("token a/t (uid {uid})"));
        assert_eq!(principal.identity, format!("token {uid}"));
        let roles = [("a".parse().unwrap(), Role::Viewer)].into();
        assert_eq!(principal.access, Access::Tenants(roles));
        assert_eq!(at("2026-06-01T00:00:00Z", "gwt_x"), None);
        assert_eq!(at("2026-05-01T00:00:00Z", "gwt_y"), None);
    }

    #[test]
    fn claims_grant_the_roles_of_all_matching_identities() {
        let state = state();
        let claim = |issuer: &str, claim: &str, value: &str| Claim {
            issuer: issuer.to_owned(),
            claim: claim.to_owned(),
            value: value.to_owned(),
            authority: None,
        };
        let credential = Credential::Claims {
            identity: "oidc:https://idp#someone".to_owned(),
            name: "oidc:https://idp#someone".to_owned(),
            claims: vec![
                claim("https://idp", "groups", "ops"),
                claim("https://other", "groups", "ops"),
                claim("https://idp", "dns", "x"),
            ],
            expires_at: "2026-06-01T00:00:00Z".parse().unwrap(),
        };
        let before = "2026-05-01T00:00:00Z".parse().unwrap();
        let principal = credential.principal(&state, before, "x").unwrap();
        let roles = [
            ("a".parse().unwrap(), Role::Admin),
            ("b".parse().unwrap(), Role::Viewer),
        ];
        assert_eq!(principal.access, Access::Tenants(roles.into()));
        let after = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!(credential.principal(&state, after, "x"), None);
    }

    #[test]
    fn bearer_tokens_are_classified_by_prefix() {
        assert_eq!(
            Bearer::from_header("Bearer gwt_a"),
            Some(Bearer::Token("gwt_a"))
        );
        assert_eq!(
            Bearer::from_header("bearer  a.b.c"),
            Some(Bearer::Jwt("a.b.c"))
        );
        assert_eq!(Bearer::from_header("Basic gwt_a"), None);
        assert_eq!(Bearer::from_header("gwt_a"), None);
    }
}
