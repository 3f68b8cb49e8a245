//! The API's client: over the control socket, or over TLS.

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
    api::{
        page::{MAX_ITEMS, Page},
        response::ProblemDocument,
    },
    files,
    model::text::escaped,
};

/// Where the agent is, and what to show it.
#[derive(Clone, Debug)]
pub enum Target {
    /// Its control socket.
    Socket(PathBuf),
    /// Its listener for tenants.
    Server {
        /// Its URL.
        url: String,
        /// The file that holds a token.
        token_file: Option<PathBuf>,
        /// The file of the authorities that vouch for the server; none: the system's.
        ca: Option<PathBuf>,
        /// The files of a client certificate and its key.
        certificate: Option<(PathBuf, PathBuf)>,
    },
}

/// A client.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<header::HeaderValue>,
    /// What to call it in messages.
    display_target: String,
}

/// What a request carries.
#[derive(Debug)]
enum Body<'a, T> {
    /// Nothing.
    Empty,
    /// JSON.
    Json(&'a T),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// No body, of the type that none needs.
const EMPTY_BODY: Body<'static, ()> = Body::Empty;

/// What stands behind the question mark.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// And this, if it is set.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push((name, value.to_string()));
        }
        self
    }
}

impl Client {
    /// Sets the connection up; nothing is sent yet.
    ///
    /// # Errors
    /// When a file can't be read or is not what it should be.
    pub fn new(target: &Target) -> Result<Self> {
        let builder = reqwest::Client::builder();
        let (builder, base, token, display_target) = match target {
            Target::Socket(path) => (
                builder
                    .unix_socket(path.as_path())
                    // No TLS on a socket file; without this the host's certificates are loaded, or
                    // missed.
                    .tls_certs_only([]),
                // Nobody reads the host's name: the socket says where it goes.
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
                    bail!("{url}: a server is talked to over https:// only");
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
                        format!("{certificate} and {key} are no certificate and its key")
                    })?;
                    builder = builder.identity(identity);
                }
                let token = token_file.as_deref().map(read_bearer).transpose()?;
                (builder, base.clone(), token, base)
            }
        };
        Ok(Self {
            http: builder
                .build()
                .context("could not set up the connection to the agent")?,
            base,
            token,
            display_target,
        })
    }

    /// A request, and its answer if that is no refusal.
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
            Err(_) => bail!("the agent answered {status}, and nothing that can be understood"),
        }
    }

    /// Sends a request, again after a while if the agent asks for that and the while is short.
    async fn send_with_retries(&self, request: RequestBuilder) -> Result<Response> {
        let mut waited = Duration::ZERO;
        loop {
            // Without one to send again there is no second try.
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
                "the agent's answer is of another version than this program: use the agent's own: {}",
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

    /// Events as they happen, each handed over as it comes, until the agent ends the stream.
    ///
    /// # Errors
    /// As for every operation, and what `each` says.
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
                        anyhow!("an event can't be understood: {}", escaped(&error))
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
            _ if server => anyhow!("could not talk to the gateway on {target}: {text}"),
            Some(std::io::ErrorKind::NotFound) => {
                anyhow!("no agent listens on {target}: start it with `plgw run`")
            }
            Some(std::io::ErrorKind::ConnectionRefused) => {
                anyhow!("the agent that listened on {target} is gone: start it with `plgw run`")
            }
            Some(std::io::ErrorKind::PermissionDenied) => anyhow!(
                "{target} may be used by root and members of its group only: you are neither"
            ),
            _ => anyhow!("could not talk to the agent on {target}: {text}"),
        }
    }
}

/// How long is waited in all for an agent that asks for patience (`Retry-After`).
const MAX_RETRY_WAIT: Duration = Duration::from_secs(30);

/// Returns how long the agent asks to wait before the request is sent again. It has done nothing then.
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

const RESPONSE_TRUNCATED: &str = "the agent's answer broke off";

/// All pages of a list, of which `page` gets the one after what it is given.
///
/// # Errors
/// As for getting a page.
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
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

fn read_authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    reqwest::Certificate::from_pem_bundle(&read(path)?)
        .with_context(|| format!("{} holds no certificates", path.display()))
}

/// The header that shows the token in the file.
fn read_bearer(path: &Path) -> Result<header::HeaderValue> {
    let text = String::from_utf8(read(path)?).ok();
    files::warn_if_readable_by_others(path);
    let token = text.as_deref().map(str::trim).unwrap_or_default();
    let value = header::HeaderValue::from_str(&format!("Bearer {token}")).ok();
    let mut value = value
        .filter(|_| !token.is_empty())
        .with_context(|| format!("{} holds no token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}
