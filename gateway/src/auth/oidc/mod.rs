//! Tokens of OpenID Connect issuers (OpenID Connect Core 1.0, Discovery 1.0; RFC 7519, RFC 7517).

mod keys;
mod settings;
mod token;

use std::{
    collections::HashMap,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, Validation, decode, jwk::JwkSet};
use log::{debug, info, warn};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use settings::IssuerSettings;

use crate::{
    auth::{
        Credential,
        oidc::{
            keys::{KeyCache, KeyLookup, REFRESH_AFTER},
            token::UnverifiedToken,
        },
    },
    outbound::{self, CALL_TIMEOUT},
};

/// Largest answer of an issuer, in bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Time that a token waits for its key to be read. A read takes no longer than [`CALL_TIMEOUT`].
const MAX_FETCH_WAIT: Duration = Duration::from_secs(6);
/// Time after which keys that could not be refreshed are read again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Trusted issuers, by URL.
pub struct Issuers {
    issuers: HashMap<String, Arc<Issuer>>,
}

struct Issuer {
    settings: IssuerSettings,
    client: reqwest::Client,
    /// Never locked while the issuer is asked.
    keys: Mutex<KeyCache>,
    /// Reads that have ended, with the outcome of the last: whether it brought keys.
    fetch_results: watch::Sender<(u64, bool)>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// Returns issuers of whom no keys are known yet.
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
                fetch_results: watch::channel((0, false)).0,
            };
            issuers.insert(settings.url.clone(), Arc::new(issuer));
        }
        Ok(Self { issuers })
    }

    /// Returns the credential that a token amounts to, if the token is genuine, for this gateway, and of now.
    ///
    /// What is wrong in form, or of an issuer that is not trusted, is refused before anything is fetched.
    pub async fn verify(&self, token: &str) -> Option<Credential> {
        let unverified = match UnverifiedToken::parse(token) {
            Ok(unverified) => unverified,
            Err(reason) => {
                debug!("oidc: token refused reason={reason:?}");
                return None;
            }
        };
        let issuer = self.issuers.get(&unverified.issuer)?;
        match issuer.verify(token, &unverified).await {
            Ok(credential) => Some(credential),
            // Anyone can have this written, so it is not written by default.
            Err(error) => {
                let url = &issuer.settings.url;
                debug!(
                    "oidc: token refused issuer={url} reason={:?}",
                    format!("{error:#}")
                );
                None
            }
        }
    }
}

impl Issuer {
    async fn verify(
        self: &Arc<Self>,
        token: &str,
        unverified: &UnverifiedToken,
    ) -> Result<Credential> {
        let key = self.key(unverified).await?;
        let mut validation = Validation::new(unverified.algorithm);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_issuer(&[&self.settings.url]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The times are checked with the claims, where those that can't be represented are refused too.
        validation.validate_exp = false;
        let claims = decode::<Map<String, Value>>(token, &key, &validation)?.claims;
        let now = Timestamp::now();
        token::credential_from_claims(&self.settings.url, &claims, now)
            .map_err(|reason| anyhow!(reason))
    }

    /// Returns the key of a token. One that is in the cache is returned at once; for any other the issuer is asked, by
    /// one task for all who wait, and not too often.
    async fn key(self: &Arc<Self>, token: &UnverifiedToken) -> Result<DecodingKey> {
        let (id, algorithm) = (&token.key_id, token.algorithm);
        // Subscribed before the look-up, so that the end of a read that is under way then is not missed.
        let mut reads = self.fetch_results.subscribe();
        let found = self.keys().look_up(id, algorithm, Instant::now());
        let started_fetch = match found {
            KeyLookup::Found(key) => return Ok(key),
            KeyLookup::Rejected => anyhow::bail!("its key is not one of the issuer's"),
            // In a task of its own: the read goes on though the one who asked for it may be gone.
            KeyLookup::FetchRequired => {
                tokio::spawn(Arc::clone(self).fetch_keys());
                true
            }
            KeyLookup::FetchInProgress => false,
        };
        let fetched = tokio::time::timeout(MAX_FETCH_WAIT, reads.changed()).await;
        fetched.context("its key took too long to be read")??;
        let mut keys = self.keys();
        let now = Instant::now();
        if let Some(key) = keys.cached_key(id, algorithm, now) {
            return Ok(key);
        }
        // A read that was under way before may have been too early for this key.
        if started_fetch {
            keys.record_unknown(id, now);
        }
        anyhow::bail!("its key is not one of the issuer's")
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, KeyCache> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the keys, whose read has begun, and has them refreshed from then on.
    async fn fetch_keys(self: Arc<Self>) {
        let url = &self.settings.url;
        let outcome = tokio::time::timeout(CALL_TIMEOUT, self.discover_keys()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it took too long")));
        let (count, previous_succeeded) = *self.fetch_results.borrow();
        let set = match outcome {
            Ok(set) => {
                if !previous_succeeded {
                    info!("oidc: keys read issuer={url} keys={}", set.keys.len());
                }
                Some(set)
            }
            Err(error) => {
                // Once, not for every token that comes meanwhile.
                if previous_succeeded || count == 0 {
                    warn!("oidc: keys not read issuer={url} error={error:#}");
                }
                None
            }
        };
        let succeeded = set.is_some();
        let first = succeeded && self.keys().is_empty();
        self.keys().end_fetch(set, Instant::now());
        self.fetch_results.send_replace((count + 1, succeeded));
        if first {
            let issuer = Arc::downgrade(&self);
            tokio::spawn(async move {
                let mut pause = REFRESH_AFTER;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(issuer) = issuer.upgrade() else {
                        return;
                    };
                    pause = issuer.refresh().await;
                }
            });
        }
    }

    /// Reads keys that are in use again; returns when to do so next.
    ///
    /// The future is boxed, since [`Self::read`] starts the task that calls this.
    fn refresh(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Duration> + Send>> {
        Box::pin(async move {
            if !self.keys().begin_fetch(Instant::now()) {
                return RETRY_AFTER;
            }
            let reads = self.fetch_results.subscribe();
            self.fetch_keys().await;
            let (_, succeeded) = *reads.borrow();
            if succeeded {
                REFRESH_AFTER
            } else {
                RETRY_AFTER
            }
        })
    }

    async fn discover_keys(&self) -> Result<JwkSet> {
        let base = self.settings.url.trim_end_matches('/');
        let discovery: Discovery = self
            .get(&format!("{base}/.well-known/openid-configuration"))
            .await?;
        anyhow::ensure!(
            discovery.issuer == self.settings.url,
            "it calls itself {:?}",
            discovery.issuer
        );
        self.get(&discovery.jwks_uri).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T> {
        let mut response = self.client.get(url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            anyhow::ensure!(
                body.len() + chunk.len() <= MAX_RESPONSE_BYTES,
                "{url:?} answers too much"
            );
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).with_context(|| format!("{url:?} can't be understood"))
    }
}
