//! Tokens of OpenID Connect issuers (OpenID Connect Core 1.0, Discovery 1.0; RFC 7519, RFC 7517).

use std::{
    collections::HashMap,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use log::{info, warn};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::{auth::Credential, log_limit::LogLimit, model::identity::Claim, outbound};

/// Keys are read anew at least so often.
const KEEP: Duration = Duration::from_secs(3_600);
/// A token with an unknown key makes the keys be read anew, at most so often.
const AGAIN: Duration = Duration::from_secs(5);
/// Keys that can't be read anew are used for so long.
const STALE: Duration = Duration::from_secs(86_400);
/// The largest answer of an issuer, in bytes.
const MOST: usize = 1 << 20;

/// An issuer that is trusted: `URL,audience=AUDIENCE`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IssuerSettings {
    /// Its URL, as its tokens have it in `iss`.
    pub url: String,
    /// For whom its tokens must be (`aud`).
    pub audience: String,
}

impl FromStr for IssuerSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: write URL,audience=AUDIENCE");
        let (url, audience) = text.split_once(",audience=").ok_or_else(wrong)?;
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("{url:?}: {error}"))?;
        if parsed.scheme() != "https" {
            return Err(format!("{url}: an issuer is asked over https:// only"));
        }
        if audience.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            url: url.to_owned(),
            audience: audience.to_owned(),
        })
    }
}

impl TryFrom<String> for IssuerSettings {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// All issuers that are trusted.
pub struct Issuers {
    issuers: HashMap<String, Issuer>,
    /// The log lines of tokens that were refused: anybody can send one.
    refusals: LogLimit,
}

struct Issuer {
    settings: IssuerSettings,
    client: reqwest::Client,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    set: Option<(Instant, JwkSet)>,
    tried: Option<Instant>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// Knows no keys yet.
    ///
    /// # Errors
    /// When the file of authorities can't be read.
    pub fn new(settings: &[IssuerSettings], authorities: Option<&PathBuf>) -> Result<Self> {
        let mut issuers = HashMap::new();
        for settings in settings {
            let client = outbound::client(authorities.map(PathBuf::as_path), |builder| {
                builder.https_only(true)
            })?;
            let issuer = Issuer {
                settings: settings.clone(),
                client,
                keys: Mutex::default(),
            };
            issuers.insert(settings.url.clone(), issuer);
        }
        Ok(Self {
            issuers,
            refusals: LogLimit::new(),
        })
    }

    /// What the token says, if it is genuine, for us, and not too old.
    pub async fn verify(&self, token: &str) -> Option<Credential> {
        // Who is to be asked for the keys; nothing is believed yet.
        let payload = token.split('.').nth(1)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let issuer = self.issuers.get(claims.get("iss")?.as_str()?)?;
        match issuer.verify(token).await {
            Ok(claims) => Some(credential(&issuer.settings.url, &claims)),
            Err(error) => {
                if let Some(more) = self.refusals.admit() {
                    let url = &issuer.settings.url;
                    info!("oidc: refused a token issuer={url} error={error:#}{more}");
                }
                None
            }
        }
    }
}

impl Issuer {
    async fn verify(&self, token: &str) -> Result<Map<String, Value>> {
        let header = decode_header(token)?;
        // A key that verifies and signs alike would let everyone sign who can verify.
        let symmetric = matches!(
            header.alg,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        );
        anyhow::ensure!(
            !symmetric,
            "it is signed with a secret, not with a key pair"
        );
        let key = self
            .key(header.kid.as_deref(), header.alg)
            .await?
            .context("its key is not one of the issuer's")?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_issuer(&[&self.settings.url]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = 30;
        Ok(decode::<Map<String, Value>>(token, &key, &validation)?.claims)
    }

    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>> {
        let mut keys = self.keys.lock().await;
        let fresh = |keys: &Keys| matches!(&keys.set, Some((at, _)) if at.elapsed() < KEEP);
        if fresh(&keys)
            && let Some(key) = find(&keys, id, algorithm)
        {
            return Ok(Some(key));
        }
        if keys.tried.is_none_or(|at| at.elapsed() >= AGAIN) {
            keys.tried = Some(Instant::now());
            match self.fetch().await {
                Ok(set) => keys.set = Some((Instant::now(), set)),
                Err(error) => {
                    warn!(
                        "could not read the keys of {}: {error:#}",
                        self.settings.url
                    );
                }
            }
        }
        if keys
            .set
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() > STALE)
        {
            keys.set = None;
        }
        anyhow::ensure!(keys.set.is_some(), "the issuer's keys could not be read");
        Ok(find(&keys, id, algorithm))
    }

    async fn fetch(&self) -> Result<JwkSet> {
        let base = self.settings.url.trim_end_matches('/');
        let discovery: Discovery = self
            .get(&format!("{base}/.well-known/openid-configuration"))
            .await?;
        anyhow::ensure!(
            discovery.issuer == self.settings.url,
            "it calls itself {}",
            discovery.issuer
        );
        self.get(&discovery.jwks_uri).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T> {
        let mut response = self.client.get(url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            anyhow::ensure!(body.len() + chunk.len() <= MOST, "{url} answers too much");
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} can't be understood"))
    }
}

/// The key of the id; without one, the only key that fits.
fn find(keys: &Keys, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let (_, set) = keys.set.as_ref()?;
    let fits = |jwk: &&jsonwebtoken::jwk::Jwk| {
        let named = jwk.common.key_algorithm.map(|named| named.to_string());
        named.is_none_or(|named| named == format!("{algorithm:?}"))
            && jwk.common.public_key_use != Some(jsonwebtoken::jwk::PublicKeyUse::Encryption)
    };
    let jwk = match id {
        Some(id) => set.find(id).filter(fits),
        None => {
            let mut fitting = set.keys.iter().filter(fits);
            fitting.next().filter(|_| fitting.next().is_none())
        }
    };
    DecodingKey::from_jwk(jwk?).ok()
}

fn credential(issuer: &str, token: &Map<String, Value>) -> Credential {
    let mut claims = Vec::new();
    let mut add = |claim: &str, value: &str| {
        claims.push(Claim {
            issuer: issuer.to_owned(),
            claim: claim.to_owned(),
            value: value.to_owned(),
        });
    };
    for (claim, value) in token {
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
    let name = text("preferred_username").or_else(|| text("email"));
    let name = name.or_else(|| text("sub")).unwrap_or("somebody");
    let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let until = token.get("exp").and_then(Value::as_i64);
    Credential::Claims {
        name: format!("{shown} of {issuer}"),
        claims,
        until: until.and_then(|end| Timestamp::from_second(end).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let good: IssuerSettings = "https://idp.example.com/realm,audience=gateway"
            .parse()
            .unwrap();
        assert_eq!(good.url, "https://idp.example.com/realm");
        assert_eq!(good.audience, "gateway");
        for wrong in [
            "https://idp.example.com",
            "http://idp.example.com,audience=x",
            "idp,audience=x",
            "https://idp,audience=",
        ] {
            assert!(wrong.parse::<IssuerSettings>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn strings_and_lists_of_strings_are_claims() {
        let token = serde_json::json!({
            "sub": "u1", "groups": ["ops", 7, "dev"], "exp": 4_000_000_000u64, "n": { "a": "b" },
        });
        let Credential::Claims {
            name,
            claims,
            until,
        } = credential("https://idp", token.as_object().unwrap())
        else {
            panic!("claims");
        };
        assert_eq!(name, "u1 of https://idp");
        let mut shown: Vec<String> = claims
            .iter()
            .map(|claim| format!("{}={}", claim.claim, claim.value))
            .collect();
        shown.sort();
        assert_eq!(shown, ["groups=dev", "groups=ops", "sub=u1"]);
        assert_eq!(until.unwrap().as_second(), 4_000_000_000);
    }
}
