//! Tokens: checks before the key is looked up, and the credential from verified claims. Does no I/O.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    auth::{
        Credential,
        display::{encoded, sanitized},
    },
    model::identity::Claim,
};

/// Maximum size of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Maximum number of a token's claims, counting each member of a list. More would make the caller's requests slow
/// others down: identities are looked up by claim while the state is locked.
const MAX_CLAIMS: usize = 256;
/// Maximum length of a key id and of a subject, in bytes. OpenID Connect Core 1.0, section 2, limits a subject to 255.
const MAX_NAME: usize = 255;
/// Tolerated difference between the clocks of issuer and gateway.
const LEEWAY: SignedDuration = SignedDuration::from_secs(30);
/// Maximum remaining validity of a token.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Maximum length of the display name in parentheses after a principal's identity, in characters.
const MAX_DISPLAY_NAME: usize = 80;

/// Token of which only the form was checked. Signature and claims may be forged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnverifiedToken {
    /// Issuer that the token names (`iss`).
    pub(super) issuer: String,
    /// Id of the key that the token names (`kid`).
    pub(super) key_id: String,
    /// Algorithm of the signature.
    pub(super) algorithm: Algorithm,
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl UnverifiedToken {
    /// Parses the parts of a token that select the key for its verification.
    ///
    /// # Errors
    /// Returns the reason if the token can't be accepted: size, form, type (RFC 8725, section 3.11), algorithm, a
    /// missing key id, or critical extensions (RFC 7515, section 4.1.11).
    pub(super) fn parse(token: &str) -> Result<Self, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("it is too large");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it does not have three parts");
        };
        if signature.is_empty() {
            return Err("it is not signed");
        }
        let header = URL_SAFE_NO_PAD.decode(header).ok();
        let header: JwtHeader = header
            .and_then(|header| serde_json::from_slice(&header).ok())
            .ok_or("its header can't be parsed or names an unknown algorithm")?;
        // With a symmetric algorithm, everyone with the verification key could sign.
        let symmetric = matches!(
            header.alg,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        );
        if symmetric {
            return Err("it is signed with a shared secret instead of a key pair");
        }
        if header.crit.is_some() {
            return Err("it has critical extensions (crit)");
        }
        if !header.typ.as_deref().is_none_or(is_accepted_type) {
            return Err("its type is neither JWT nor at+jwt");
        }
        let key_id = header.kid.ok_or("it does not name its key (kid)")?;
        if key_id.is_empty() || key_id.len() > MAX_NAME || key_id.chars().any(char::is_control) {
            return Err("its key id is not a text of 1 to 255 bytes");
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).ok();
        let payload: Map<String, Value> = payload
            .and_then(|payload| serde_json::from_slice(&payload).ok())
            .ok_or("its claims can't be parsed")?;
        let issuer = payload.get("iss").and_then(Value::as_str);
        Ok(Self {
            issuer: issuer
                .ok_or("it does not name its issuer (iss)")?
                .to_owned(),
            key_id,
            algorithm: header.alg,
        })
    }
}

/// Returns true if tokens of the type (`typ`) are accepted. An issuer signs tokens of other types, such as logout
/// tokens, with the same keys.
fn is_accepted_type(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let text = text.strip_prefix("application/").unwrap_or(&text);
    matches!(text, "jwt" | "at+jwt")
}

/// Returns the credential for the claims of a token whose signature was verified.
///
/// An `email` claim is used only if `email_verified` is `true`: otherwise the user may have chosen it freely.
///
/// # Errors
/// Returns the reason if the token is rejected: a time that can't be represented, is past, not reached or too far in
/// the future, or a subject that is missing or too long.
pub(super) fn credential_from_claims(
    issuer: &str,
    token: &Map<String, Value>,
    now: Timestamp,
) -> Result<Credential, String> {
    let until = claim_time(token, "exp")?.ok_or("it has no exp")?;
    if until <= now {
        return Err("it has expired".to_owned());
    }
    if until.duration_since(now) > MAX_VALIDITY {
        return Err("it is valid for more than 366 days".to_owned());
    }
    for claim in ["nbf", "iat"] {
        if claim_time(token, claim)?.is_some_and(|from| from.duration_since(now) > LEEWAY) {
            return Err(format!("its {claim} is in the future"));
        }
    }
    let subject = token.get("sub").and_then(Value::as_str);
    let subject = subject.ok_or("it has no subject (sub)")?;
    if subject.is_empty() || subject.len() > MAX_NAME {
        return Err("its subject (sub) is not a text of 1 to 255 bytes".to_owned());
    }
    let email_is_verified = token.get("email_verified") == Some(&Value::Bool(true));
    let mut claims = Vec::new();
    let mut add = |claim: &str, value: &str| {
        if claims.len() == MAX_CLAIMS {
            return;
        }
        claims.push(Claim {
            issuer: issuer.to_owned(),
            claim: claim.to_owned(),
            value: value.to_owned(),
            authority: None,
        });
    };
    for (claim, value) in token {
        if claim == "email" && !email_is_verified {
            continue;
        }
        match value {
            Value::String(text) => add(claim, text),
            Value::Array(list) => {
                for text in list.iter().filter_map(Value::as_str) {
                    add(claim, text);
                }
            }
            _ => {}
        }
    }
    let text = |claim: &str| token.get(claim).and_then(Value::as_str);
    let chosen = text("preferred_username").or_else(|| text("email").filter(|_| email_is_verified));
    let display_name = chosen.map(|name| sanitized(name, MAX_DISPLAY_NAME));
    let identity = format!("oidc:{issuer}#{}", encoded(subject));
    let name = match display_name.filter(|name| !name.is_empty()) {
        Some(chosen) => format!("{identity} ({chosen})"),
        None => identity.clone(),
    };
    Ok(Credential::Claims {
        identity,
        name,
        claims,
        expires_at: until,
    })
}

/// Returns the time in a claim (NumericDate, RFC 7519, section 2), rounded down to seconds.
fn claim_time(token: &Map<String, Value>, claim: &str) -> Result<Option<Timestamp>, String> {
    let wrong = || format!("its {claim} is not a time that can be represented");
    let number = match token.get(claim) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(wrong()),
    };
    let seconds = match (number.as_i64(), number.as_f64()) {
        (Some(seconds), _) => seconds,
        (None, Some(float)) if float.abs() < 1e15 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the guard of the arm checks the range"
            )]
            let seconds = float.floor() as i64;
            seconds
        }
        _ => return Err(wrong()),
    };
    let time = Timestamp::from_second(seconds);
    time.map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn parts(header: &Value, payload: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(payload))
    }

    fn validate(mut claims: Value) -> Result<Credential, String> {
        let map = claims.as_object_mut().unwrap();
        map.entry("sub").or_insert(json!("u1"));
        map.entry("exp").or_insert(json!(NOW + 600));
        let now = Timestamp::from_second(NOW).unwrap();
        credential_from_claims("https://idp", map, now)
    }

    fn claims_of(claims: Value) -> Vec<String> {
        let Ok(Credential::Claims { claims, .. }) = validate(claims) else {
            panic!("claims");
        };
        let shown = claims.iter().map(|c| format!("{}={}", c.claim, c.value));
        let mut shown: Vec<String> = shown.collect();
        shown.sort();
        shown
    }

    fn principal_name(claims: Value) -> (String, String) {
        let Ok(Credential::Claims { identity, name, .. }) = validate(claims) else {
            panic!("claims");
        };
        (identity, name)
    }

    #[test]
    fn malformed_tokens_are_rejected_before_a_key_is_looked_up() {
        let payload = json!({ "iss": "https://idp" });
        let good = json!({ "alg": "ES256", "kid": "k", "typ": "JWT" });
        let parsed = UnverifiedToken::parse(&parts(&good, &payload)).unwrap();
        assert_eq!((&*parsed.issuer, &*parsed.key_id), ("https://idp", "k"));
        for (header, payload) in [
            (json!({ "alg": "none", "kid": "k" }), &payload),
            (json!({ "alg": "HS256", "kid": "k" }), &payload),
            (json!({ "alg": "ES257", "kid": "k" }), &payload),
            (json!({ "kid": "k" }), &payload),
            (json!({ "alg": "ES256" }), &payload),
            (json!({ "alg": "ES256", "kid": "" }), &payload),
            (json!({ "alg": "ES256", "kid": 7 }), &payload),
            (json!({ "alg": "ES256", "kid": "k\n" }), &payload),
            (json!({ "alg": "ES256", "kid": "k".repeat(256) }), &payload),
            (
                json!({ "alg": "ES256", "kid": "k", "crit": ["x"] }),
                &payload,
            ),
            (
                json!({ "alg": "ES256", "kid": "k", "typ": "logout+jwt" }),
                &payload,
            ),
            (good.clone(), &json!({})),
            (good.clone(), &json!({ "iss": 7 })),
            (
                good.clone(),
                &json!({ "iss": "https://idp", "x": "y".repeat(20_000) }),
            ),
        ] {
            let token = parts(&header, payload);
            assert!(
                UnverifiedToken::parse(&token).is_err(),
                "{header} {payload}"
            );
        }
        let whole = parts(&good, &payload);
        let (unsigned, _) = whole.rsplit_once('.').unwrap();
        for token in [
            "",
            "a.b.c",
            unsigned,
            &format!("{unsigned}."),
            &format!("{whole}.x"),
        ] {
            assert!(UnverifiedToken::parse(token).is_err(), "{token}");
        }
    }

    #[test]
    fn types_of_access_and_id_tokens_are_accepted() {
        for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
            let header = json!({ "alg": "ES256", "kid": "k", "typ": typ });
            let token = parts(&header, &json!({ "iss": "https://idp" }));
            assert!(UnverifiedToken::parse(&token).is_ok(), "{typ}");
        }
    }

    #[test]
    fn an_expiry_must_be_a_future_time_that_can_be_represented() {
        let until = |exp: Value| match validate(json!({ "exp": exp })) {
            Ok(Credential::Claims {
                expires_at: until, ..
            }) => Some(until.as_second()),
            _ => None,
        };
        assert_eq!(until(json!(NOW + 600)), Some(NOW + 600));
        assert_eq!(until(json!(1_800_000_600.75)), Some(NOW + 600));
        assert_eq!(until(json!(1.800_000_6e9)), Some(NOW + 600));
        for wrong in [
            json!(1e300),
            json!(-1e300),
            json!(1e18),
            json!(u64::MAX),
            json!(i64::MAX),
            json!("1800000600"),
            json!(null),
            json!([NOW + 600]),
            json!(NOW),
            json!(NOW - 1),
            json!(0),
            json!(NOW + 367 * 86_400),
        ] {
            assert_eq!(until(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn not_yet_valid_and_malformed_times_are_refused() {
        for claim in ["nbf", "iat"] {
            let with = |value: Value| validate(json!({ claim: value })).is_ok();
            assert!(
                with(json!(NOW)) && with(json!(NOW + 30)) && with(json!(0.5)),
                "{claim}"
            );
            for wrong in [json!(NOW + 31), json!(1e300), json!("0"), json!({})] {
                assert!(!with(wrong.clone()), "{claim}: {wrong}");
            }
        }
    }

    #[test]
    fn strings_and_lists_of_strings_are_claims() {
        let shown = claims_of(json!({ "groups": ["ops", 7, "dev"], "n": { "a": "b" } }));
        assert_eq!(shown, ["groups=dev", "groups=ops", "sub=u1"]);
    }

    #[test]
    fn an_email_address_is_a_claim_only_if_verified() {
        let with = |verified: Value| {
            let claims = json!({ "email": "kim@a.example", "email_verified": verified });
            let shown = principal_name(claims.clone()).1.contains("kim");
            let counts = claims_of(claims).contains(&"email=kim@a.example".to_owned());
            assert_eq!(shown, counts);
            counts
        };
        assert!(with(json!(true)));
        assert!(
            !with(json!(false)) && !with(json!(null)) && !with(json!("true")) && !with(json!(1))
        );
    }

    #[test]
    fn principals_are_identified_by_issuer_and_subject() {
        let plain = principal_name(json!({ "sub": "u1" }));
        assert_eq!(plain.0, "oidc:https://idp#u1");
        assert_eq!(plain.0, plain.1);
        let called = principal_name(json!({ "sub": "u1", "preferred_username": "kim" }));
        assert_eq!(called, (plain.0, "oidc:https://idp#u1 (kim)".to_owned()));
        // A subject that imitates a display name.
        let liar = principal_name(json!({ "sub": "u1 (kim)" }));
        assert_eq!(liar.1, "oidc:https://idp#u1%20(kim)");
        let hidden =
            principal_name(json!({ "sub": "u2", "preferred_username": "\u{202e}\u{1b}[2K\n" }));
        assert_eq!(hidden.1, "oidc:https://idp#u2 ([2K)");
        for wrong in [json!(""), json!(7), json!("x".repeat(256))] {
            assert!(validate(json!({ "sub": wrong })).is_err());
        }
    }

    #[test]
    fn the_number_of_claims_is_bounded() {
        let groups: Vec<String> = (0..1_000).map(|number| format!("g{number}")).collect();
        assert_eq!(claims_of(json!({ "groups": groups })).len(), MAX_CLAIMS);
    }
}
