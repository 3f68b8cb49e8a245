//! API client, over the control socket or over TLS.

mod operations;
pub mod types;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::types::{MAX_ITEMS, Page, ProblemDocument},
    files,
    model::text::escaped,
};

/// Address of the API, with the credentials to present.
#[derive(Clone, Debug)]
pub enum Target {
    /// Control socket.
    Socket(PathBuf),
    /// TLS listener.
    Server {
        /// URL: `https://HOST:PORT`.
        url: String,
        /// File with a bearer token.
        token_file: Option<PathBuf>,
        /// File of the certificate authorities that the server is verified against; none: the system's.
        ca: Option<PathBuf>,
        /// Files of a client certificate and its key.
        certificate: Option<(PathBuf, PathBuf)>,
    },
}

/// API client.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<header::HeaderValue>,
    /// Name of the target in messages.
    display_target: String,
}

/// Body of a request.
#[derive(Debug)]
enum Body<'a, T> {
    /// No body.
    Empty,
    /// JSON value.
    Json(&'a T),
    /// Octets.
    Bytes(Vec<u8>),
}

/// Empty body. The type parameter is arbitrary.
const EMPTY_BODY: Body<'static, ()> = Body::Empty;

/// Query string of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Adds a parameter, if it has a value.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push((name, value.to_string()));
        }
        self
    }
}

impl Client {
    /// Returns a client for the target. Reads the files that the target names, and sends nothing.
    ///
    /// # Errors
    /// If a file can't be read or is malformed.
    pub fn new(target: &Target) -> Result<Self> {
        let builder = reqwest::Client::builder();
        let (builder, base, token, display_target) = match target {
            Target::Socket(path) => (
                builder
                    .unix_socket(path.as_path())
                    // Unused on a socket. Without it reqwest loads the system's certificates, and fails if there
                    // are none.
                    .tls_certs_only([]),
                // A placeholder: requests go to the socket, whatever the host is.
                "http://plgw".to_owned(),
                None,
                path.display().to_string(),
            ),
            Target::Server {
                url,
                token_file,
                ca,
                certificate,
            } => {
                let base = url.trim_end_matches('/').to_owned();
                if !base.starts_with("https://") {
                    bail!("{url} is not an https URL: write https://HOST:PORT");
                }
                let mut builder = builder.connect_timeout(Duration::from_secs(10));
                if let Some(path) = ca {
                    builder = builder.tls_certs_only(read_authorities(path)?);
                }
                if let Some((certificate, key)) = certificate {
                    let mut text = read(certificate)?;
                    text.extend(read(key)?);
                    files::warn_if_readable_by_others(key);
                    let identity = reqwest::Identity::from_pem(&text).with_context(|| {
                        let (certificate, key) = (certificate.display(), key.display());
                        format!("{certificate} and {key} are not a certificate and its private key")
                    })?;
                    builder = builder.identity(identity);
                }
                let token = token_file.as_deref().map(read_bearer).transpose()?;
                (builder, base.clone(), token, base)
            }
        };
        Ok(Self {
            http: builder.build().context("the HTTP client can't be set up")?,
            base,
            token,
            display_target,
        })
    }

    /// Sends a request and returns the response if its status is a success.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body<'_, B>,
    ) -> Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !query.0.is_empty() {
            request = request.query(&query.0);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        match body {
            Body::Empty => {}
            Body::Json(value) => request = request.json(value),
            Body::Bytes(bytes) => {
                request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .body(bytes);
            }
        }
        let response = self.send_with_retries(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<ProblemDocument>(&bytes) {
            Ok(problem) => match problem.field {
                Some(field) => bail!("{} (field {})", escaped(&problem.detail), escaped(&field)),
                None => bail!("{}", escaped(&problem.detail)),
            },
            Err(_) => bail!(
                "the agent responded with {status} and no problem document: check that the target is a gateway"
            ),
        }
    }

    /// Sends a request. Repeats it as long as the agent asks for that (`Retry-After`) and the waits stay within
    /// [`MAX_RETRY_WAIT`].
    async fn send_with_retries(&self, request: RequestBuilder) -> Result<Response> {
        let mut waited = Duration::ZERO;
        loop {
            // A request that can't be cloned is sent once.
            let copy = request.try_clone();
            let Some(attempt) = copy else {
                return request.send().await.map_err(|error| self.explain(error));
            };
            let response = attempt.send().await.map_err(|error| self.explain(error))?;
            let Some(wait) = retry_after(&response).filter(|wait| waited + *wait <= MAX_RETRY_WAIT)
            else {
                return Ok(response);
            };
            waited += wait;
            tokio::time::sleep(wait).await;
        }
    }

    async fn call<T: DeserializeOwned, B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body<'_, B>,
    ) -> Result<T> {
        let response = self.send(method, path, query, body).await?;
        let bytes = response.bytes().await.context(RESPONSE_TRUNCATED)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            anyhow!(
                "the agent's response can't be parsed: use the `plgw` program of the agent's version: {}",
                escaped(&error.to_string())
            )
        })
    }

    async fn call_without_answer<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body<'_, B>,
    ) -> Result<()> {
        self.send(method, path, query, body).await.map(drop)
    }

    async fn call_for_text<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body<'_, B>,
    ) -> Result<String> {
        let response = self.send(method, path, query, body).await?;
        response.text().await.context(RESPONSE_TRUNCATED)
    }

    async fn call_for_bytes<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body<'_, B>,
    ) -> Result<Vec<u8>> {
        let response = self.send(method, path, query, body).await?;
        Ok(response.bytes().await.context(RESPONSE_TRUNCATED)?.to_vec())
    }

    /// Receives events as they occur and calls `each` with each of them, until the agent ends the stream.
    ///
    /// # Errors
    /// If the request fails, the stream breaks off, or `each` fails.
    pub async fn follow_events(
        &self,
        query: &Query,
        mut each: impl FnMut(types::Event) -> Result<()>,
    ) -> Result<()> {
        let query = query.clone().with("follow", Some(true));
        let mut response = self
            .send(Method::GET, "/v1/events", &query, EMPTY_BODY)
            .await?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.context(RESPONSE_TRUNCATED)? {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data:") {
                    let event = serde_json::from_slice(data).map_err(|error| {
                        let error = error.to_string();
                        anyhow!(
                            "an event of the stream can't be parsed: {}",
                            escaped(&error)
                        )
                    })?;
                    each(event)?;
                }
            }
        }
        Ok(())
    }

    fn explain(&self, error: reqwest::Error) -> anyhow::Error {
        let target = &self.display_target;
        let mut deepest: &dyn std::error::Error = &error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        let text = deepest.to_string();
        let text = escaped(&text);
        let kind = deepest
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let server = self.token.is_some() || self.base.starts_with("https://");
        match kind {
            _ if server => anyhow!("the gateway at {target} can't be reached: {text}"),
            Some(std::io::ErrorKind::NotFound) => {
                anyhow!("no agent listens on {target}: start it with `plgw run`")
            }
            Some(std::io::ErrorKind::ConnectionRefused) => {
                anyhow!("the agent on {target} is gone: start it with `plgw run`")
            }
            Some(std::io::ErrorKind::PermissionDenied) => anyhow!(
                "access to {target} is denied: run as root, or as a member of the socket's group"
            ),
            _ => anyhow!("the agent on {target} can't be reached: {text}"),
        }
    }
}

/// Maximum total wait for an agent that asks for a repetition (`Retry-After`).
const MAX_RETRY_WAIT: Duration = Duration::from_secs(30);

/// Returns the time after which the agent asks for the request again. The agent has not processed the request then, so
/// a repetition is safe.
fn retry_after(response: &Response) -> Option<Duration> {
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if !busy.contains(&response.status()) {
        return None;
    }
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

const RESPONSE_TRUNCATED: &str = "the agent's response broke off";

/// Collects all pages of a list. `page` takes a limit and the cursor that the page before returned.
///
/// # Errors
/// If `page` fails.
pub async fn collect_pages<T>(
    mut page: impl AsyncFnMut(Option<u64>, Option<&str>) -> Result<Page<T>>,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let next = page(Some(MAX_ITEMS as u64), after.as_deref()).await?;
        items.extend(next.items);
        after = next.next;
        if after.is_none() {
            return Ok(items);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} can't be read", path.display()))
}

fn read_authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    reqwest::Certificate::from_pem_bundle(&read(path)?)
        .with_context(|| format!("{} is not a PEM file of certificates", path.display()))
}

/// Returns the `Authorization` header for the token in the file.
fn read_bearer(path: &Path) -> Result<header::HeaderValue> {
    let text = String::from_utf8(read(path)?).ok();
    files::warn_if_readable_by_others(path);
    let token = text.as_deref().map(str::trim).unwrap_or_default();
    let value = header::HeaderValue::from_str(&format!("Bearer {token}")).ok();
    let mut value = value
        .filter(|_| !token.is_empty())
        .with_context(|| format!("{} contains no bearer token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}
