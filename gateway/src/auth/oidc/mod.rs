//! Verification of tokens of OpenID Connect issuers (OpenID Connect Core 1.0, Discovery 1.0; RFC 7519, RFC 7517).

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

/// Maximum size of an issuer's response, in bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Maximum time that a request waits for the key of its token. A fetch takes no longer than [`CALL_TIMEOUT`].
const MAX_FETCH_WAIT: Duration = Duration::from_secs(6);
/// Interval to the next fetch after one that failed.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Trusted issuers, by URL.
pub struct Issuers {
    issuers: HashMap<String, Arc<Issuer>>,
}

struct Issuer {
    settings: IssuerSettings,
    client: reqwest::Client,
    /// Not locked during a fetch.
    keys: Mutex<KeyCache>,
    /// Number of fetches that have ended, and true if the last one succeeded.
    fetch_results: watch::Sender<(u64, bool)>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// Returns the issuers, without keys: those are fetched on demand.
    ///
    /// # Errors
    /// If the file of certificate authorities can't be read.
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

    /// Verifies a token. Returns its credential if a trusted issuer signed the token for this gateway's audience and
    /// the token is valid now.
    ///
    /// A token that is malformed or of an untrusted issuer is rejected without a fetch.
    pub async fn verify(&self, token: &str) -> Option<Credential> {
        let unverified = match UnverifiedToken::parse(token) {
            Ok(unverified) => unverified,
            Err(reason) => {
                debug!("oidc: token rejected reason={reason:?}");
                return None;
            }
        };
        let issuer = self.issuers.get(&unverified.issuer)?;
        match issuer.verify(token, &unverified).await {
            Ok(credential) => Some(credential),
            // At debug level: anyone can cause this message.
            Err(error) => {
                let url = &issuer.settings.url;
                debug!(
                    "oidc: token rejected issuer={url} reason={:?}",
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
        // `credential_from_claims` checks the times, and rejects those that can't be represented.
        validation.validate_exp = false;
        let claims = decode::<Map<String, Value>>(token, &key, &validation)?.claims;
        let now = Timestamp::now();
        token::credential_from_claims(&self.settings.url, &claims, now)
            .map_err(|reason| anyhow!(reason))
    }

    /// Returns the key of a token.
    ///
    /// A cached key is returned at once. For any other one, the issuer's keys are fetched, at a limited rate and by one
    /// task for all waiting requests.
    async fn key(self: &Arc<Self>, token: &UnverifiedToken) -> Result<DecodingKey> {
        let (id, algorithm) = (&token.key_id, token.algorithm);
        // Subscribed before the look-up, so that the end of a fetch in progress is not missed.
        let mut reads = self.fetch_results.subscribe();
        let found = self.keys().look_up(id, algorithm, Instant::now());
        let started_fetch = match found {
            KeyLookup::Found(key) => return Ok(key),
            KeyLookup::Rejected => anyhow::bail!("the issuer does not have its key"),
            // In a separate task: the fetch continues if the request that caused it is cancelled.
            KeyLookup::FetchRequired => {
                tokio::spawn(Arc::clone(self).fetch_keys());
                true
            }
            KeyLookup::FetchInProgress => false,
        };
        let fetched = tokio::time::timeout(MAX_FETCH_WAIT, reads.changed()).await;
        fetched.context("the fetch of its key timed out")??;
        let mut keys = self.keys();
        let now = Instant::now();
        if let Some(key) = keys.cached_key(id, algorithm, now) {
            return Ok(key);
        }
        // A fetch that had begun before may have read the keys before the issuer published this one.
        if started_fetch {
            keys.record_unknown(id, now);
        }
        anyhow::bail!("the issuer does not have its key")
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, KeyCache> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the keys after the cache has marked the fetch as begun. The first success starts the periodic refresh.
    async fn fetch_keys(self: Arc<Self>) {
        let url = &self.settings.url;
        let outcome = tokio::time::timeout(CALL_TIMEOUT, self.discover_keys()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("timed out")));
        let (count, previous_succeeded) = *self.fetch_results.borrow();
        let set = match outcome {
            Ok(set) => {
                if !previous_succeeded {
                    info!("oidc: keys fetched issuer={url} keys={}", set.keys.len());
                }
                Some(set)
            }
            Err(error) => {
                // Logged at the first failure in a row only: every token causes a fetch.
                if previous_succeeded || count == 0 {
                    warn!("oidc: fetch of keys failed issuer={url} error={error:#}");
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

    /// Fetches the keys again and returns the interval to the next refresh.
    ///
    /// The future is boxed because [`Self::fetch_keys`] starts the task that calls this: its type would be recursive.
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
            "the discovery document names another issuer, {:?}",
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
                "the response of {url:?} is larger than {MAX_RESPONSE_BYTES} bytes"
            );
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("the response of {url:?} can't be parsed"))
    }
}
