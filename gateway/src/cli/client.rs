//! Talking to the agent.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{
        page::{MOST_ITEMS, Page},
        response::ProblemDocument,
    },
    cli::output::{Format, Table, render},
};

/// A connection to the agent, and how to show what it says.
pub(super) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
    format: Format,
}

impl Client {
    pub(super) fn new(socket: &Path, format: Format) -> Result<Self> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            // No TLS on a socket file; without this the host's certificates are loaded, or missed.
            .tls_certs_only([])
            .build()
            .context("could not set up the connection to the agent")?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
            format,
        })
    }

    /// A request, and the body of its answer.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Vec<u8>> {
        // The host's name goes into a header that nobody reads: the socket says where it goes.
        let mut request = self.http.request(method, format!("http://gateway{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.explain(error))?;
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .context("the agent's answer broke off")?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        match serde_json::from_slice::<ProblemDocument>(&bytes) {
            Ok(problem) => match problem.field {
                Some(field) => bail!("{} (field {field})", problem.detail),
                None => bail!("{}", problem.detail),
            },
            Err(_) => bail!("the agent answered {status}, and nothing that can be understood"),
        }
    }

    fn explain(&self, error: reqwest::Error) -> anyhow::Error {
        let socket = self.socket.display();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let mut deepest: &dyn std::error::Error = &error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        match deepest
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
        {
            Some(std::io::ErrorKind::NotFound) => {
                anyhow!("no agent listens on {socket}: start it with `gateway run`")
            }
            Some(std::io::ErrorKind::ConnectionRefused) => {
                anyhow!("the agent that listened on {socket} is gone: start it with `gateway run`")
            }
            Some(std::io::ErrorKind::PermissionDenied) => anyhow!(
                "{socket} may be used by root and members of its group only: you are neither"
            ),
            _ => anyhow!(
                "could not talk to the agent on {socket}: {}",
                cause.unwrap_or_else(|| error.to_string())
            ),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(&self.send::<()>(Method::GET, path, None).await?)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        read(&self.send(Method::POST, path, Some(body)).await?)
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        read(&self.send(Method::PUT, path, Some(body)).await?)
    }

    /// Deletes an object, and says so.
    pub(super) async fn delete(&self, path: &str, what: &str) -> Result<()> {
        self.send::<()>(Method::DELETE, path, None).await?;
        if self.format == Format::Table {
            print(&format!("{what} deleted\n"))?;
        }
        Ok(())
    }

    /// All pages of a list.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let cursor = after.map_or_else(String::new, |after: String| {
                format!("&after={}", after.replace('/', "%2F"))
            });
            let page: Page<T> = self
                .get(&format!("{path}?limit={MOST_ITEMS}{cursor}"))
                .await?;
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(items);
            }
        }
    }

    /// The names of all tenants, or the one that is named.
    pub(super) async fn tenants(&self, only: Option<String>) -> Result<Vec<String>> {
        if let Some(only) = only {
            return Ok(vec![only]);
        }
        let tenants: Vec<crate::api::view::TenantView> = self.list("/v1/tenants").await?;
        Ok(tenants
            .into_iter()
            .map(|tenant| tenant.meta.name.to_string())
            .collect())
    }

    /// The objects of a kind, of one tenant or of all.
    pub(super) async fn list_owned<T: DeserializeOwned>(
        &self,
        tenant: Option<String>,
        kind: &str,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        for tenant in self.tenants(tenant).await? {
            items.extend(self.list(&format!("/v1/tenants/{tenant}/{kind}")).await?);
        }
        Ok(items)
    }

    /// Shows one thing: as a table made of it, or whole.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<()> {
        print(&render(self.format, value, table)?)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .context("the agent's answer is of another version than this program: use the agent's own")
}

/// Prints; a reader that has gone away is no failure.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("could not print"),
    }
}
